"""Estimates: declared until measured, then what was measured."""

import pytest

from optimizer.core.prediction import CONTENTION, EVICT_S, Estimates
from optimizer.core.tiers import STRATEGY_CATALOGUE
from tests.core.machine import QWEN, TINY


def test_declared_figures_until_something_is_measured() -> None:
    estimates = Estimates(STRATEGY_CATALOGUE)
    assert estimates.load_s(QWEN) == 4.0
    assert estimates.evict_s(QWEN) == EVICT_S
    assert estimates.run_s(QWEN, 600, 45) == pytest.approx((1.0 + 1.0) / CONTENTION)


def test_load_times_are_the_median_of_the_last_five() -> None:
    estimates = Estimates(STRATEGY_CATALOGUE)
    for seconds in (9.0, 9.0, 0.2, 0.2, 0.2, 0.2, 90.0):
        estimates.observe_load(QWEN, seconds)
        estimates.observe_eviction(QWEN, seconds / 10)
    assert estimates.load_s(QWEN) == 0.2
    assert estimates.evict_s(QWEN) == pytest.approx(0.02)


def test_speeds_follow_what_runs_report() -> None:
    estimates = Estimates(STRATEGY_CATALOGUE)
    for _ in range(40):
        estimates.observe_run(TINY, prompt_tokens=100, output_tokens=50, prefill_s=0.1, decode_s=0.5)
    assert estimates.run_s(TINY, 1000, 100) == pytest.approx(1.0 + 1.0)


def test_durations_that_were_not_reported_teach_nothing() -> None:
    estimates = Estimates(STRATEGY_CATALOGUE)
    before = estimates.run_s(TINY, 100, 100)
    estimates.observe_run(TINY, 100, 100, prefill_s=0.0, decode_s=0.0)
    estimates.observe_run(TINY, 0, 0, prefill_s=1.0, decode_s=1.0)
    assert estimates.run_s(TINY, 100, 100) == before


def test_no_run_is_free_and_unknown_models_are_no_error() -> None:
    estimates = Estimates(STRATEGY_CATALOGUE)
    assert estimates.run_s(TINY, 0, 0) > 0
    assert estimates.load_s("foreign") > 0 and estimates.run_s("foreign", 10, 10) > 0


def test_what_one_node_measures_holds_on_another_until_it_has_measured_itself() -> None:
    fast, new = Estimates(STRATEGY_CATALOGUE), Estimates(STRATEGY_CATALOGUE)
    fast.peers, new.peers = [new], [fast]
    fast.observe_run(TINY, 100, 100, 0.1, 0.2)
    fast.observe_load(TINY, 0.5)
    assert new.run_s(TINY, 100, 100) == fast.run_s(TINY, 100, 100) == pytest.approx(0.3)
    assert new.load_s(TINY) == 0.5
    new.observe_run(TINY, 100, 100, 1.0, 2.0)
    new.observe_load(TINY, 3.0)
    fast.observe_run(TINY, 100, 100, 0.1, 0.2)
    fast.observe_load(TINY, 0.5)
    assert new.run_s(TINY, 100, 100) == pytest.approx(3.0) and new.load_s(TINY) == 3.0
    assert fast.run_s(TINY, 100, 100) == pytest.approx(0.3) and fast.load_s(TINY) == 0.5
