"""Comparisons: deterministic, fair, and readable as table, data and page."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from optimizer.core.errors import ConfigurationError
from optimizer.simulation import report, table
from optimizer.simulation.experiment import CONTENDERS, compare, run
from optimizer.simulation.metrics import jain, quantile
from optimizer.simulation.plan import Options, Plan, plan


def short(workload: str = "poisson", **more) -> Plan:
    return plan(Options(workload=workload, hours=0.25, **more))


def results(chosen: Plan, policies: list[str], seeds: list[int]):
    return compare(policies, chosen.workload, chosen.machine, seeds, chosen.thresholds, chosen.catalogue)


@pytest.mark.parametrize("policy", sorted(CONTENDERS))
@pytest.mark.parametrize("workload", ["closed", "overload"])
def test_a_seed_replays_to_the_same_figures(policy: str, workload: str) -> None:
    def once():
        chosen = short(workload, think_s=600.0)
        return run(policy, chosen.workload, chosen.machine, 7, chosen.thresholds, chosen.catalogue).summary

    assert once() == once()


def test_every_policy_meets_the_same_requests() -> None:
    chosen = short()
    comparison = results(chosen, ["steady", "ollama", "fifo"], [1])
    asked = {
        name: [(o.agent, o.model, o.arrived_at, o.output_tokens) for o in runs[0].history.outcomes]
        for name, runs in comparison.results.items()
    }
    assert asked["steady"] == asked["ollama"] == asked["fifo"]


def test_all_at_once_is_measured_against_the_bound() -> None:
    comparison = results(short("at-once"), ["steady", "fifo"], [1, 2])
    for result in comparison.results["steady"] + comparison.results["fifo"]:
        assert result.bound_s <= result.summary.makespan_s
    data = table.data(comparison)["policies"]
    assert 1.0 <= data["steady"]["makespan_over_bound"] <= 1.07
    assert "makespan / proven lower bound" in table.text(comparison)


def test_a_card_that_holds_everything_needs_three_loads() -> None:
    comparison = results(short("poisson", vram_mb=8192), ["steady"], [1])
    assert comparison.means["steady"].loads <= 3


def test_models_can_be_changed_and_added() -> None:
    small = {"name": "deepseek-r1:8b", "footprint_mb": 2880}
    extra = {
        "name": "embedder", "tier": "default", "footprint_mb": 300, "load_s": 1, "prefill_tps": 9000,
        "decode_tps": 100, "agents": 5, "prompt_tokens": 50, "output_tokens": 1,
    }  # fmt: skip
    chosen = short(models=[small, extra])
    assert chosen.machine.footprint_mb("deepseek-r1:8b") == 2880
    asked = {a.model for a in chosen.workload.traffic(1).first()}
    assert "embedder" in asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workload": "storm"}, "no workload 'storm'"),
        ({"load": -1.0}, "load must be above 0"),
        ({"vram_mb": 3000}, "deepseek-r1:8b cannot fit"),
        ({"thresholds": {"stay": "often"}}, "stay: must be a number"),
        ({"thresholds": {"nonsense": "1"}}, "no such threshold"),
        ({"models": [{"name": "new"}]}, "model new"),
        ({"models": [{"name": "tinyllama", "colour": "red"}]}, "model tinyllama"),
        ({"models": [{"name": "tinyllama", "tier": "gold"}]}, "no tier 'gold'"),
    ],
)
def test_wrong_options_say_what_to_change(options, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan(Options(**{"workload": "poisson", **options}))


def test_the_page_holds_table_and_pictures_and_needs_no_network() -> None:
    page = report.html(results(short("at-once"), ["steady", "ollama"], [1]), "two <policies>")
    assert "two &lt;policies&gt;" in page and "makespan / proven lower bound" in page
    assert page.count('class="plotly-graph-div"') == 5
    assert "<script src=" not in page


def test_fairness_and_quantiles() -> None:
    assert jain([1, 1, 1, 1]) == 1.0
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 1.0
    assert [quantile([1, 2, 3, 4], share) for share in (0.5, 0.95)] == [2, 4]
    assert quantile([], 0.5) == 0.0


# --- manage.py simulate (no database is allowed here, so it needs none) ---


def simulate(*arguments: str) -> str:
    out = io.StringIO()
    call_command("simulate", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_command_prints_ratios_against_ollama() -> None:
    text = simulate("--workload", "at-once", "--policies", "steady,ollama", "--seeds", "1")
    line = next(line for line in text.splitlines() if line.startswith("makespan, s"))
    assert line.split()[3].endswith("x)")


def test_the_command_prints_json_and_writes_the_page(tmp_path) -> None:
    page = tmp_path / "report.html"
    text = simulate(
        "--workload", "at-once", "--policies", "steady", "--seeds", "2", "--json", "--html", str(page),
        "--set", "stay=8",
    )  # fmt: skip
    data = json.loads(text)
    assert [run["seed"] for run in data["policies"]["steady"]["seeds"]] == [1, 2]
    assert page.read_text().startswith("<!doctype html>")


def test_the_command_replays_a_file(tmp_path) -> None:
    file = tmp_path / "traffic.jsonl"
    file.write_text('{"at_s": 0, "agent": "a", "model": "tinyllama", "prompt_tokens": 300, "output_tokens": 120}\n')
    data = json.loads(simulate("--workload", str(file), "--policies", "ollama", "--seeds", "1", "--json"))
    assert data["policies"]["ollama"]["mean"]["mean_s"] == pytest.approx(1.2 + 0.1 + 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policies", "magic"], "no policy 'magic'"),
        (["--workload", "missing.jsonl"], "is neither"),
        (["--set", "stay"], "NAME=VALUE"),
        (["--seeds", "0"], "at least one"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        simulate(*arguments)
