"""Profiling: assignments judged on enough requests and for a clear gain, in a sentence each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import TIER_SLUGS, rank
from optimizer.profiling import MIN_REQUESTS, Workload, profiles


def judge(*workloads: Workload):
    return profiles(workloads, Thresholds())


def load(assigned: str, complexity: float, count: int = MIN_REQUESTS, slug: str = "a", **fields) -> Workload:
    return Workload(slug=slug, name=slug, assigned=assigned, complexities=(complexity,) * count, **fields)


@pytest.mark.parametrize(("tier", "complexity"), [("default", 0.2), ("sonnet", 0.6), ("opus", 0.95)])
def test_an_assignment_that_fits_the_workload_is_kept(tier, complexity):
    (found,) = judge(load(tier, complexity))
    assert found.suggested == ""
    assert found.sentence == f"Keep {tier}: median complexity {complexity:.2f} over 20 requests, no outcomes yet."
    assert found.spread[tier] == 1.0
    assert found.complexity == pytest.approx(complexity)


def test_hard_work_needs_a_stronger_tier():
    (found,) = judge(load("default", 0.95))
    assert found.suggested == "opus"
    assert found.sentence.startswith("Needs opus: ")
    assert "median complexity 0.95 over 20 requests" in found.sentence


def test_easy_work_would_do_with_a_cheaper_tier():
    (found,) = judge(load("opus", 0.1))
    assert found.suggested == "default"
    assert found.sentence.startswith("Default would do: ")


def test_too_few_requests_are_not_judged():
    (found,) = judge(load("opus", 0.1, count=MIN_REQUESTS - 1))
    assert found.suggested == ""
    assert found.sentence == "Too early to say: 19 of 20 requests with a complexity."
    (empty,) = judge(load("opus", 0.1, count=0))
    assert (empty.complexity, empty.requests, empty.expected_good) == (None, 0, {})


def test_outcomes_count_more_than_complexity():
    (found,) = judge(load("default", 0.2, outcomes={"default": (1, 20)}))
    assert found.suggested == "sonnet"
    assert "default 1 of 20 good" in found.sentence
    (kept,) = judge(load("default", 0.7, outcomes={"default": (20, 20)}))
    assert kept.suggested == ""


def test_a_gain_that_is_not_clear_changes_nothing():
    (found,) = judge(load("default", 0.42))
    assert found.suggested == ""


def test_bounds_of_the_agent_limit_the_suggestion():
    (found,) = judge(load("default", 0.95, max_tier="sonnet"))
    assert found.suggested == "sonnet"


def test_suggestions_come_first_then_names():
    found = judge(load("sonnet", 0.6, slug="b"), load("sonnet", 0.6, slug="A"), load("default", 0.95, slug="z"))
    assert [profile.slug for profile in found] == ["z", "A", "b"]


@given(
    st.sampled_from(TIER_SLUGS),
    st.lists(st.floats(0, 1), min_size=MIN_REQUESTS, max_size=40),
    st.dictionaries(st.sampled_from([*TIER_SLUGS, ""]), st.integers(0, 30).map(lambda n: (n // 2, n))),
)
def test_every_agent_gets_one_sentence_and_a_suggestion_is_another_tier(assigned, complexities, outcomes):
    workload = Workload("a", "a", assigned, tuple(complexities), outcomes=outcomes)
    (found,) = judge(workload)
    assert found.sentence.endswith(".")
    assert found.suggested != assigned
    if found.suggested:
        stronger = rank(found.suggested) > rank(assigned)
        assert found.sentence.startswith("Needs" if stronger else f"{found.suggested.capitalize()} would do")
