"""Routing's figures: the measures on curves known by hand, the protocol on made-up agents, the targets on real data.

With NARROWGAUGE_QUALITY_DATA set to a folder of the formats of docs/evaluation.md the targets of issue 4 are checked.
"""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.errors import ConfigurationError
from optimizer.core.request import AgentProfile
from optimizer.core.selection import Selector
from optimizer.evaluation.routing import area, calibration_error, evaluate, recovered, tier_shares

DATA = os.environ.get("NARROWGAUGE_QUALITY_DATA")


def test_the_measures_on_curves_known_by_hand():
    weak, strong = [0, 0, 1, 1], [1, 1, 1, 1]
    best = recovered([4, 3, 2, 1], weak, strong)
    assert best == [0, 0.5, 1, 1, 1]
    assert area(best) == pytest.approx(0.75)
    assert area(recovered([1, 2, 3, 4], weak, strong)) == pytest.approx(0.25)
    assert area(recovered([7, 7, 7, 7], weak, strong)) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2))
def test_every_curve_ends_with_the_whole_gap_and_its_reverse_mirrors_it(asks):
    weak = [0.0] * len(asks)
    strong = [1.0, *(float(good) for _, good in asks[1:])]
    needs = [float(need) for need, _ in asks]
    forth, back = recovered(needs, weak, strong), recovered([-need for need in needs], weak, strong)
    assert forth[-1] == pytest.approx(1.0)
    assert area(forth) + area(back) == pytest.approx(1.0)


def test_asks_without_a_gap_cannot_be_measured():
    with pytest.raises(ConfigurationError, match="not better"):
        recovered([1.0], [1.0], [1.0])


def test_calibration_error():
    assert calibration_error([0.95] * 20, [1.0] * 19 + [0.0]) == pytest.approx(0.0)
    assert calibration_error([0.9] * 10, [0.0] * 10) == pytest.approx(0.9)
    assert calibration_error([1.0, 0.05], [1.0, 1.0]) == pytest.approx(0.475)


def made_up(count: int = 60, seed: int = 3) -> list[dict]:
    """Four agents; the weak model can do the work of two of them, and nothing of it shows in the prompt."""
    rng = random.Random(seed)
    return [
        {
            "prompt": f"Please do number {rng.randrange(10)}",
            "task": f"agent {agent}",
            "scores": {"small": float(rng.random() < (0.9 if agent < 2 else 0.2)), "large": 1.0},
        }
        for agent in range(4)
        for _ in range(count)
    ]


def test_outcomes_find_the_agents_that_need_the_strong_model():
    found = evaluate({"own": made_up()}, repeats=2)
    assert found["cold"]["apgr"] == pytest.approx(0.5, abs=0.07)
    assert found["apgr"] > 0.65  # knowing the agents perfectly would give 0.69
    assert found["half"]["apgr"] > 0.62
    assert found["calibration_error"] < found["cold"]["calibration_error"]
    (one,) = found["by_set"].values()
    assert (one["asks"], one["agents"], one["strong_score"]) == (240, 4, 1.0)
    assert list(found["by_set"]) == ["own: small -> large"]
    assert {"apgr", "gap_recovered_20", "calibration_error", "by_set"} <= found.keys()
    json.dumps(found)


def test_the_figures_are_reproducible():
    assert evaluate({"own": made_up()}, repeats=1) == evaluate({"own": made_up()}, repeats=1)


def test_progress_is_told():
    told = []
    evaluate({"own": made_up()}, repeats=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]


def test_pairs_are_those_asked_for_or_every_clearly_weaker_model_against_the_strongest():
    rows = made_up()
    for row in rows:
        row["scores"]["almost"] = row["scores"]["large"]
        row["scores"]["tiny"] = 0.0
    found = evaluate({"own": rows}, repeats=1)
    assert list(found["by_set"]) == ["own: small -> almost", "own: tiny -> almost"]
    found = evaluate({"own": rows}, pairs=[("tiny", "small")], repeats=1)
    assert list(found["by_set"]) == ["own: tiny -> small"]


@pytest.mark.parametrize(
    ("rows", "pairs", "words"),
    [
        ([], (), "no rows"),
        ([{"prompt": "x"}], (), "row 1: needs"),
        ([{"prompt": "x", "scores": {"a": 3}}], (), "from 0 to 1"),
        ([{"prompt": "x", "scores": {"a": 1.0}}], (), "clearly weaker"),
        ([{"prompt": "x", "scores": {"a": 1.0, "b": 0.0}}], [("a", "c")], "it has a, b"),
        ([{"prompt": "x", "scores": {"a": 1.0, "b": 0.0}}], [("a", "b")], "not stronger"),
    ],
)
def test_data_that_cannot_be_measured_is_a_clear_error(rows, pairs, words):
    with pytest.raises(ConfigurationError, match=words):
        evaluate({"own": rows}, pairs=pairs)


def test_tier_shares_are_counted_per_assigned_tier():
    agents = [AgentProfile(slug=tier, tier=tier) for tier in ("default", "sonnet", "opus")]
    prompts = [f"{'Prove and explain why. ' * (n % 7)}What is {n}?" for n in range(300)]
    found = tier_shares(prompts, agents)
    assert sum(found["tiers"].values()) == pytest.approx(1.0, abs=0.01)
    assert found["by_assigned"]["opus"]["opus"] > found["by_assigned"]["sonnet"]["opus"]
    assert found["by_assigned"]["default"]["default"] > found["by_assigned"]["sonnet"]["default"]
    assert 0 < found["decision_p50_ms"] <= found["decision_p95_ms"]


def test_what_is_measured_is_what_production_decides_by(monkeypatch):
    """Break the product's estimates, and the evaluation must notice."""
    before = evaluate({"own": made_up()}, repeats=1)
    monkeypatch.setattr(type(Selector().outcomes), "observe", lambda *_: None)
    assert evaluate({"own": made_up()}, repeats=1)["apgr"] < before["apgr"] - 0.1


if DATA:  # NARROWGAUGE_QUALITY_DATA

    @pytest.mark.slow
    def test_the_development_data_reach_their_targets():
        names = ("route_routellm_dev", "route_tiers_dev")
        texts = {name: (Path(DATA) / f"{name}.jsonl").read_text() for name in names}
        sets = {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}
        found = evaluate(sets)
        assert len(found["by_set"]) == 6
        assert found["cold"]["apgr"] >= 0.58
        assert found["apgr"] >= 0.75
        assert found["gap_recovered_20"] >= 0.50
        assert found["calibration_error"] <= 0.05
