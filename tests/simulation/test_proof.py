"""The tuner's experiment, on minutes instead of hours: deterministic, honest about fresh traffic, readable."""

from random import Random

import pytest

from controlplane.management.commands.prove_tuning import summary, text
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.simulation import proof
from optimizer.simulation.proof import Accepted, Proof, off_by, prove
from optimizer.simulation.tuner import search

MADE = Proof(
    1, 0.8, 3.0, 2.2, {"a": 2.0, "b": 2.5}, [Accepted({"stay": 6.0}, 0.8, 0.9, 0.75), Accepted({}, 0.9, 1, 1.1)]
)


def test_an_experiment_replays_to_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "FRESH", 2)
    monkeypatch.setattr(proof, "MOST_CYCLES", 2)
    one, two = (prove(3, 0.9, 0.2, hour_s=120.0) for _ in range(2))
    assert one == two and len(one.fixed) == 12
    end = one.start
    for accepted in one.accepted:
        assert accepted.promised <= 0.97
        end *= accepted.real
    assert end == pytest.approx(one.end)


def test_a_machine_that_is_off_keeps_what_fits() -> None:
    other = off_by(STRATEGY_CATALOGUE, 0.2, Random(1))
    for name, spec in STRATEGY_CATALOGUE.models.items():
        assert other.models[name].footprint_mb == spec.footprint_mb
        assert 0.3 < other.models[name].decode_tps / spec.decode_tps < 3.0 and other.models[name] != spec
    assert off_by(STRATEGY_CATALOGUE, 0.0, Random(1)) == STRATEGY_CATALOGUE


def test_a_search_changes_nothing_and_proposes_only_what_can_be_replayed() -> None:
    parts = proof._hours(1, 0.9, 120.0, 8, 0)
    before = changed(Thresholds(), proof.POOR)
    found = search(parts, before, STRATEGY_CATALOGUE, ["stay"])
    assert [candidate.name for candidate in found.untried] == ["batch_max=6"]
    assert not any("stay" in trial.candidate.change for trial in found.trials)
    assert search(parts, before, STRATEGY_CATALOGUE, ["stay"]) == found


def test_the_table_and_the_summary_say_the_same() -> None:
    assert summary([MADE]) == {
        "runs": 1, "within_10_percent_of_best_fixed": 1.0, "mean_over_best_fixed": 1.1, "worst_over_best_fixed": 1.1,
        "accepted": 2, "accepted_really_better": 0.5, "mean_promised": pytest.approx(0.85),
        "mean_real": pytest.approx(0.925), "worst_accepted": 1.1,
    }  # fmt: skip
    assert "| 0.8 | 1 | 3.00 | 2.20 | 2.00 | 1.10 | stay 6.0 0.80 -> 0.75 |" in text([MADE])
