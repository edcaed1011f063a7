"""Candidates stay within bounds, the gate is exactly where it is said to be, and effects are judged fairly."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tuning import BOUNDS, Candidate, Figures, Verdict, best, candidates, check_effect, judge

PLAIN = Figures(requests=100, lateness=1.0, mean_s=10.0, p95_s=30.0, within_target=0.8, swaps=5)

settings = st.builds(
    lambda stay, urgent, every, ttl, scale, order: changed(
        Thresholds(),
        {"stay": stay, "urgent": urgent, "longest_waiting_every": every, "cache_ttl_s": ttl,
         "max_tokens_scale": scale, "order": order},
    ),
    st.floats(0, 200), st.floats(0, 100), st.integers(1, 100), st.floats(1, 2_592_000), st.floats(0.1, 4),
    st.sampled_from(["wfq", "shortest", "fifo"]),
)  # fmt: skip


@given(settings)
def test_no_candidate_leaves_the_bounds_or_changes_nothing(now: Thresholds) -> None:
    for candidate in candidates(now):
        [(name, value)] = candidate.change.items()
        assert getattr(changed(now, candidate.change), name) == value != getattr(now, name)
        if name in BOUNDS:
            low, high = BOUNDS[name]
            assert low <= value <= high and low <= getattr(now, name) <= high
        else:
            assert name == "order" and value != "fifo"


@given(settings, st.lists(st.integers(0, 20), max_size=30))
def test_however_often_it_changes_something_it_stays_within_the_bounds(start: Thresholds, choices: list[int]) -> None:
    now = start
    for choice in choices:
        found = candidates(now)
        if not found:
            break
        now = changed(now, found[choice % len(found)].change)
        for name, (low, high) in BOUNDS.items():
            moved = getattr(now, name) != getattr(start, name)
            assert not moved or low <= getattr(now, name) <= high
        assert now.order == start.order or now.order != "fifo"


def test_the_strategys_three_adjustments_are_among_them() -> None:
    tried = [dict(candidate.change) for candidate in candidates(Thresholds())]
    assert tried[:3] == [{"max_tokens_scale": 0.8}, {"cache_ttl_s": 5400.0}, {"batch_max": 6}]


def test_steps_repeat_until_the_bound_and_then_stop() -> None:
    now, seen = Thresholds(), []
    while found := [c for c in candidates(now) if "max_tokens_scale" in c.change]:
        now = changed(now, found[0].change)
        seen.append(now.max_tokens_scale)
    assert seen == [0.8, 0.64, 0.512, 0.5]


def test_what_rests_is_left_alone() -> None:
    assert not any("stay" in candidate.change for candidate in candidates(Thresholds(), ["stay"]))


def pieces(*lateness: float, **more: float) -> list[Figures]:
    return [replace(PLAIN, lateness=value, **more) for value in lateness]  # type: ignore[arg-type]


EIGHT = pieces(*[1.0] * 8)


@pytest.mark.parametrize(
    ("after", "accepted", "said"),
    [
        (pieces(*[0.96] * 8), True, "proved"),
        (pieces(*[0.971] * 8), False, "2.9% better on average"),
        (pieces(*[0.9] * 6, 1.01, 1.01), True, "proved"),
        (pieces(*[0.8] * 5, *[1.01] * 3), False, "better in 5 of 8 pieces, 6 are needed"),
        (pieces(0.6, 0.6, *[0.99] * 4, 1.2, 1.2), False, "may be chance"),  # 4.5 % better, better in 6, by two pieces
        (pieces(*[1.2] * 8), False, "20.0% worse on average"),
        (pieces(*[0.5] * 8, cut_short=0.02), False, "cuts 2.0% of the answers short"),
    ],
)
def test_the_gate_is_three_percent_six_of_eight_and_more_than_chance(
    after: list[Figures], accepted: bool, said: str
) -> None:
    verdict = judge(EIGHT, after)
    assert verdict.accepted is accepted and said in verdict.reason


def test_fewer_than_eight_pieces_prove_nothing() -> None:
    assert "only 7 pieces" in judge(EIGHT[:7], pieces(*[0.5] * 7)).reason


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_the_interval_holds_the_ratio(pairs: list[tuple[float, float]]) -> None:
    verdict = judge(pieces(*[a for a, _ in pairs]), pieces(*[b for _, b in pairs]))
    assert verdict.low <= verdict.ratio * (1 + 1e-9) and verdict.ratio <= verdict.high * (1 + 1e-9)


def test_pieces_that_agree_make_a_narrow_interval() -> None:
    same = judge(EIGHT, pieces(*[0.9] * 8))
    spread = judge(EIGHT, pieces(0.5, 1.3, 0.5, 1.3, 0.5, 1.3, 0.9, 0.9))
    assert same.high - same.low < 1e-9 and spread.high - spread.low > 0.3


def test_an_empty_queue_before_and_after_is_no_gain() -> None:
    assert judge(pieces(*[0.0] * 8), pieces(*[0.0] * 8)).ratio == 1.0


def test_the_largest_proved_gain_wins() -> None:
    def verdict(ratio: float, accepted: bool = True) -> Verdict:
        return Verdict(accepted, "", ratio, ratio, ratio, 8, 8)

    a, b, c = (Candidate(name, {"stay": 1.0}, "") for name in "abc")
    assert best([(a, verdict(0.9)), (b, verdict(0.8)), (c, verdict(0.1, accepted=False))]) == (b, verdict(0.8))
    assert best([(c, verdict(0.1, accepted=False))]) is None


@pytest.mark.parametrize(
    ("before", "after", "replayed", "requests", "verdict"),
    [
        (1.0, 1.09, (0.0, 0.0), 30, "kept"),
        (1.0, 1.11, (0.0, 0.0), 30, "worse"),
        (1.0, 5.0, (0.0, 0.0), 29, "unclear"),
        (1.0, 2.0, (3.0, 6.0), 30, "kept"),  # the traffic would have doubled it anyway
        (1.0, 1.0, (3.0, 1.5), 30, "worse"),  # the traffic alone would have halved it
        (0.0, 1.0, (0.0, 0.0), 30, "unclear"),
    ],
)
def test_an_effect_is_measured_against_what_the_traffic_explains(
    before: float, after: float, replayed: tuple[float, float], requests: int, verdict: str
) -> None:
    assert check_effect(before, after, *replayed, requests, 30).verdict == verdict
