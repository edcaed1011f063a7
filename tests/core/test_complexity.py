"""Complexity: the four factors, hints, what is not scored, and the percentile of recent traffic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.complexity import COLD_SCORES, TRAFFIC, Factors, Traffic, factors, saturated
from optimizer.core.request import Task
from optimizer.core.thresholds import Thresholds, changed

PROOF = "Prove that the sum of the first n odd numbers is a square, by induction, and explain each step."
PUZZLE = (
    "A train leaves at 9:40 at 80 km/h, another at 10:10 at 95 km/h. How many minutes until they meet after 300 km?"
)


def score(ask: str, **hints) -> float:
    return factors(ask, Task(**hints)).score(Thresholds())


@pytest.mark.parametrize(
    "harder", [PROOF, PUZZLE, "Write a Python class for a bounded queue, with tests.\n```python\n```"]
)
def test_a_hard_ask_scores_above_a_short_question(harder):
    assert score(harder) > score("What is the capital of France?") + 0.05


@given(st.text(max_size=300), st.text(max_size=50))
def test_every_factor_is_a_share_and_more_text_never_lowers_the_context(ask, more):
    found = factors(ask, Task())
    for factor in (found.reasoning, found.context, found.output, found.expertise):
        assert 0.0 <= factor <= 1.0
    assert 0.0 <= found.score(Thresholds()) <= 1.0
    assert factors(ask + more, Task()).context >= found.context


def test_hints_win_over_guesses():
    found = factors(PROOF, Task(reasoning_steps=0, expected_lines=0, expertise_level=0.0))
    assert (found.reasoning, found.output, found.expertise) == (0.0, 0.0, pytest.approx(0.0, abs=0.4))
    assert factors("hi", Task(reasoning_steps=40)).reasoning > 0.99
    assert factors("hi", Task(expected_lines=600)).output > 0.99
    assert factors("hi", Task(expertise_level=1.0)).expertise == 0.5
    assert factors("hi", Task(expertise_level=7.0)).expertise == 0.5


def test_the_context_counts_once_and_only_as_context():
    context = f"Notes. {PROOF * 20}"
    alone = factors("Is this sound?", Task(context=context))
    within = factors(f"Context:\n{context}\n\nIs this sound?", Task(context=context))
    assert within.reasoning == pytest.approx(alone.reasoning)
    assert within.context == pytest.approx(alone.context, abs=0.01)
    assert alone.reasoning == factors("Is this sound?", Task()).reasoning


def test_the_score_is_the_weighted_average():
    found = Factors(1.0, 0.5, 0.0, 0.0)
    assert found.score(Thresholds()) == pytest.approx(0.4 + 0.2 * 0.5)
    only_context = changed(
        Thresholds(), {"weight_reasoning": 0, "weight_context": 1, "weight_output": 0, "weight_expertise": 0}
    )
    assert found.score(only_context) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ask", "character"),
    [
        (PROOF, "multi-step proof"),
        (PUZZLE, "multi-step calculation"),
        ("Why, if the design is the best, should we compare and evaluate it?", "multi-step reasoning"),
        ("Hello there", "short question"),
        ("Hello there " * 60, "plain request"),
        ("Please read this. " * 400, "large context"),
        ("Write a story and a plan.", "long answer"),
        ("Write a python function.", "code task"),
        ("quantum enzyme", "expert domain"),
    ],
)
def test_the_character_says_what_the_ask_is(ask, character):
    assert factors(ask, Task(expertise_level=0.9)).character == character


def test_saturation():
    assert saturated(0.0, 4.0) == 0.0
    assert saturated(-3.0, 4.0) == 0.0
    assert saturated(4.0, 4.0) == pytest.approx(0.632, abs=0.001)


def test_of_a_long_ask_only_the_start_and_the_end_are_read():
    edge = "Explain why 3 times 4 { is } the total;\n" * 50
    middles = ("prove the theorem by induction. " * 400, "tell it more gently, my friend.. " * 400)
    one, other = (factors(edge + middle[:12_000] + edge, Task()) for middle in middles)
    assert one == other


def test_the_percentile_of_cold_traffic_uses_the_whole_scale():
    traffic = Traffic()
    found = [traffic.percentile(score) for score in COLD_SCORES]
    assert list(COLD_SCORES) == sorted(COLD_SCORES)
    assert found[0] == pytest.approx(0.025)
    assert found[-1] == pytest.approx(0.975)
    assert traffic.percentile(-1.0) == 0.0
    assert traffic.percentile(2.0) == 1.0


def test_traffic_is_forgotten_beyond_its_bound():
    traffic = Traffic()
    for _ in range(TRAFFIC):
        traffic.add(0.9)
    assert traffic.percentile(0.89) == 0.0
    assert traffic.percentile(0.9) == 0.5


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_the_percentile_is_a_share_and_never_falls_with_the_score(seen, one, other):
    traffic = Traffic()
    for value in seen:
        traffic.add(value)
    low, high = sorted((one, other))
    assert 0.0 <= traffic.percentile(low) <= traffic.percentile(high) <= 1.0
