"""Truncation: never over budget, instruction and question kept, the gaps marked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.truncation import GAP, truncate
from optimizer.embedding import default_embedder
from optimizer.tokens import LlamaTokenCounter

COUNT = LlamaTokenCounter()

LONG = "\n".join(
    [
        "You are a harbour clerk who answers politely.",
        "",
        "## Manners",
        *(f"- {verb} every caller in a friendly way" for verb in ("Greet", "Thank", "Help", "Guide", "Please", "Calm")),
        "The north light is switched on at 17:40.",
        *(f"- {verb} every caller in a friendly way" for verb in ("Write", "Call", "Leave", "Meet", "Answer", "Ask")),
        "When does the office open?",
    ]
)


@given(st.text(alphabet="ab .\n`#-é漢1", max_size=200), st.integers(0, 60), st.sampled_from(["", "ab 1?"]))
@settings(max_examples=200, deadline=None)
def test_never_over_the_budget_and_counted_right(text, budget, question):
    result = truncate(text, budget, COUNT, question=question)
    assert result.tokens_after == COUNT(result.text) <= max(budget, 0)
    assert result.tokens_before == COUNT(text)
    assert (result.text == text) == (result.dropped == "")


@pytest.mark.parametrize("budget", range(0, 130, 3))
def test_a_real_prompt_stays_within_any_budget(budget):
    assert COUNT(truncate(LONG, budget, COUNT).text) <= budget


def test_a_text_that_fits_is_untouched():
    assert truncate("Short.", 10, COUNT).text == "Short."


@pytest.mark.parametrize("embed", [None, default_embedder()], ids=["words only", "wordllama"])
def test_instruction_question_and_the_line_unlike_the_others_stay(embed):
    text = truncate(LONG, 90, COUNT, embed=embed).text
    assert text.startswith("You are a harbour clerk")
    assert "17:40" in text
    assert text.endswith("When does the office open?")


@pytest.mark.parametrize("embed", [None, default_embedder()], ids=["words only", "wordllama"])
def test_a_known_question_decides_what_stays(embed):
    text = truncate(LONG, 60, COUNT, question="How do I calm a caller?", embed=embed).text
    assert "Calm every caller" in text


def test_a_question_at_the_end_of_the_text_is_taken_as_the_question():
    lines = [f"Box {n} holds {what}." for n, what in enumerate(("nails", "rope", "lamps", "paint", "glass", "tar"))]
    text = "\n".join(["Answer from the list.", *lines, "Where are the lamps?"])
    shorter = truncate(text, 50, COUNT)
    assert "Box 2 holds lamps." in shorter.text and "least relevant first" in shorter.dropped


def test_what_is_missing_is_said_in_the_text_and_in_words():
    result = truncate(LONG, 90, COUNT)
    assert f"[{GAP} " in result.text and "parts left out to fit]" in result.text
    assert "parts" in result.dropped and "least relevant first" in result.dropped
    assert "least telling first" in truncate(LONG.removesuffix("?"), 90, COUNT).dropped


def test_kept_lines_stay_in_order():
    kept = [line.removesuffix(f" {GAP}") for line in truncate(LONG, 100, COUNT).text.split("\n")]
    original = LONG.split("\n")
    places = [original.index(line) for line in kept if line in original]
    assert places == sorted(places) and len(places) > 3


def test_a_long_line_is_cut_between_sentences():
    line = "Sort the list. " + " ".join(f"Never move box {n} to the red room of the old house." for n in range(30))
    text = truncate(line, 120, COUNT).text
    assert text.startswith("Sort the list.")
    assert all(part.endswith((".", "]", GAP)) for part in text.split(f" {GAP} "))


def test_code_that_is_kept_keeps_its_fences():
    text = "Fix the code.\n\n```python\nx = 1\n" + "y = 2  # filler\n" * 40 + "```\n\nWhy is port_9 shut?"
    shorter = truncate(text, 90, COUNT, question="What is x?").text
    assert shorter.count("```") in (0, 2)
