"""Predicted answer lengths: the tier's at first, then the agent's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core import lengths
from optimizer.core.lengths import TYPICAL_TOKENS, Lengths


@pytest.mark.parametrize("tier", TYPICAL_TOKENS)
def test_an_unknown_agent_is_taken_for_typical_of_its_tier(tier):
    assert Lengths().expected("a", "m", tier, 10_000) == TYPICAL_TOKENS[tier]


def test_the_agents_own_answers_take_over():
    known = Lengths()
    for _ in range(40):
        known.observe("a", "m", "opus", 50)
    assert known.expected("a", "m", "opus", 10_000) == 50
    assert known.expected("a", "other", "opus", 10_000) == TYPICAL_TOKENS["opus"]
    assert known.expected("b", "m", "opus", 10_000) == TYPICAL_TOKENS["opus"]


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(1, 4096))
def test_a_prediction_is_from_one_to_the_cap(answers, cap):
    known = Lengths()
    for tokens in answers:
        known.observe("a", "m", "sonnet", tokens)
    assert 1 <= known.expected("a", "m", "sonnet", cap) <= cap


def test_the_memory_is_bounded_and_the_least_recent_goes_first(monkeypatch):
    monkeypatch.setattr(lengths, "MAX_PAIRS", 2)
    known = Lengths()
    for agent in ("a", "b", "a", "c"):
        known.observe(agent, "m", "default", 500)
    assert known.expected("b", "m", "default", 999) == TYPICAL_TOKENS["default"]
    assert known.expected("a", "m", "default", 999) > TYPICAL_TOKENS["default"]
