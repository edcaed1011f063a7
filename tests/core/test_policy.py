"""The decision tree of docs/scheduling.md, number by number."""

from dataclasses import replace

import pytest

from optimizer.core.policy import Rule, Standing, by_urgency, by_worth, stay_s, swap_s, verdict
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Residency

THRESHOLDS = Thresholds(stay=10.0, urgent=4.0, batch_window_ms=100.0)

IDLE = Standing(
    model="idle", waiting=0, running=0, oldest_age_s=0.0, overdue=0.0, in_place_s=1.0, gate=0, served=True,
    passed=0, load_s=4.0, evict_s=1.0,
)  # fmt: skip
BUSY = replace(IDLE, model="busy", waiting=3, oldest_age_s=10.0, overdue=1.0, in_place_s=60.0)
NEW = replace(IDLE, model="new", waiting=1, oldest_age_s=5.0, overdue=0.5, in_place_s=0.0)


@pytest.mark.parametrize(
    ("number", "newcomer", "leaving", "swap", "rule"),
    [
        (1, replace(NEW, oldest_age_s=0.05), IDLE, False, Rule.YOUNG),
        (2, NEW, IDLE, True, Rule.IDLE),
        (3, NEW, replace(BUSY, in_place_s=49.0), False, Rule.STAY),
        (3, NEW, replace(BUSY, waiting=0, running=1, in_place_s=49.0), False, Rule.STAY),
        (4, NEW, BUSY, True, Rule.STAYED),
        (5, replace(NEW, overdue=4.0), replace(BUSY, gate=2), True, Rule.URGENT),
        (5, replace(NEW, overdue=4.0), replace(BUSY, gate=2, in_place_s=49.0), False, Rule.STAY),
        (5, replace(NEW, overdue=4.0), replace(BUSY, gate=2, served=False), False, Rule.GATE),
        (6, replace(NEW, overdue=3.9), replace(BUSY, gate=2), False, Rule.GATE),
    ],
)
def test_each_branch_of_the_tree(number, newcomer, leaving, swap, rule) -> None:
    decision = verdict(newcomer, [leaving], THRESHOLDS)
    assert (decision.swap, decision.rule) == (swap, rule)


def test_urgent_zero_leaves_only_the_gate() -> None:
    decision = verdict(replace(NEW, overdue=1e9), [replace(BUSY, gate=1)], replace(THRESHOLDS, urgent=0.0))
    assert decision.rule is Rule.GATE


def test_the_verdict_says_how_long_until_time_alone_changes_it() -> None:
    assert verdict(replace(NEW, oldest_age_s=0.04), [IDLE], THRESHOLDS).due_in_s == pytest.approx(0.06)
    assert verdict(NEW, [replace(BUSY, in_place_s=20.0)], THRESHOLDS).due_in_s == pytest.approx(30.0)


def test_the_stay_is_measured_in_swap_times_of_the_busy_models() -> None:
    assert stay_s([BUSY], THRESHOLDS) == 10 * (1.0 + 4.0)
    assert stay_s([BUSY, replace(IDLE, load_s=100.0)], THRESHOLDS) == 10 * (1.0 + 4.0)
    assert stay_s([replace(BUSY, load_s=0.2, evict_s=0.05)], THRESHOLDS) == pytest.approx(10 * 0.25)


def test_a_swap_takes_the_longest_eviction_and_the_load() -> None:
    assert swap_s(NEW, [replace(BUSY, evict_s=0.5), replace(BUSY, evict_s=2.0)]) == 6.0


def test_the_most_overdue_comes_in_first() -> None:
    rows = [replace(NEW, model="a", overdue=1.0), replace(NEW, model="b", overdue=2.0)]
    assert [row.model for row in by_urgency(rows, models=3)] == ["b", "a"]


def test_who_was_passed_over_by_as_many_swaps_as_there_are_others_comes_in_before_all() -> None:
    rows = [replace(NEW, model="late", overdue=9.0, passed=1), replace(NEW, model="starved", overdue=0.1, passed=2)]
    assert by_urgency(rows, models=3)[0].model == "starved"


def test_idle_and_on_demand_models_leave_before_busy_and_resident_ones() -> None:
    rows = [
        replace(BUSY, model="hot", overdue=5.0),
        replace(BUSY, model="warm", overdue=1.0),
        replace(IDLE, model="always", residency=Residency.ALWAYS),
        replace(IDLE, model="guest"),
    ]
    assert by_worth(rows) == ["guest", "always", "warm", "hot"]
