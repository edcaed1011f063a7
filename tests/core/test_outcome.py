"""The automatic check: only what the text itself proves bad is bad."""

import pytest

from optimizer.core.outcome import LOOP_LINES, automatic

SCHEMA = {"type": "object", "required": ["name", "age"]}


@pytest.mark.parametrize("text", ["", " \n", "\t"])
def test_an_empty_answer_is_bad_unless_it_calls_tools(text):
    assert automatic(text=text, done_reason="stop") is False
    assert automatic(text=text, done_reason="stop", tool_calls=1) is None


def test_an_answer_cut_off_is_bad_unless_the_caller_set_the_limit():
    assert automatic(text="The first of", done_reason="length") is False
    assert automatic(text="The first of", done_reason="length", limited=True) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am really sorry, but as an AI language model I cannot do this.",
        "Sorry, I cannot do this.",
        "I cannot assist with that request.",
        "As an AI language model, I cannot browse the web.",
        "Unfortunately, I am unable to open files.",
        "I apologize, but I won’t write this.",
    ],
)
def test_a_refusal_is_bad(text):
    assert automatic(text=text, done_reason="stop") is False


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "I can't wait to see you!",
        "Sorry for the delay! The fix is in line 3.",
        "I will not write again, said the poet.",
        "I cannot recommend it enough.",
        "The server answered: I'm sorry, but I can't help with that.",
        "I'm sorry, but I can't run it here. " + "Here is how you do it yourself. " * 20,
        "no\nno\nno",
    ],
)
def test_an_answer_without_visible_fault_is_unknown_not_good(text):
    assert automatic(text=text, done_reason="stop") is None


@pytest.mark.parametrize(
    ("text", "format", "outcome"),
    [
        ('{"a": 1}', "json", None),
        ('```json\n{"a": 1}\n```', "json", None),
        ("Here you are: {}", "json", False),
        ('{"a": ', "json", False),
        ('{"name": "Ada", "age": 36}', SCHEMA, None),
        ('{"name": "Ada"}', SCHEMA, False),
        ("[1]", SCHEMA, False),
        ("true", {"type": "integer"}, False),
        ("true", {"type": ["integer", "boolean"]}, None),
        ("1", {"type": "number"}, None),
        ("plain words", None, None),
    ],
)
def test_json_that_was_asked_for_must_be_json(text, format, outcome):
    assert automatic(text=text, done_reason="stop", format=format) is outcome


def test_json_cut_at_the_callers_own_limit_is_unknown():
    assert automatic(text='{"a": ', done_reason="length", format="json", limited=True) is None


def test_a_model_caught_in_a_loop_is_bad():
    assert automatic(text="Start\n" + "the same line\n" * LOOP_LINES, done_reason="stop") is False
    assert automatic(text="the same line\n" * (LOOP_LINES - 1), done_reason="stop") is None
    assert automatic(text="Table:\n" + "----\n" * 20, done_reason="stop") is None
