"""Compression: the same instruction in fewer tokens; deterministic, idempotent, never longer, nothing damaged."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.compression import compress
from optimizer.core.logfold import fold, name_tail, unfold
from optimizer.core.tiers import CompressionLevel
from optimizer.evaluation.compression import damage
from optimizer.tokens import LlamaTokenCounter

COUNT = LlamaTokenCounter()
AGGRESSIVE, MODERATE, MINIMAL = CompressionLevel.AGGRESSIVE, CompressionLevel.MODERATE, CompressionLevel.MINIMAL


def short(text: str, level: CompressionLevel = AGGRESSIVE) -> str:
    return compress(text, level, COUNT).text


PIECES = st.sampled_from(
    [
        "Could you please check the door?",
        "Please make sure that you do not open port 8080.",
        "In order to win, it is important to note that a few rules hold.",
        "**Bold** and __strong__ words, **kwargs and a ** b.",
        "## 🎯 Goal",
        "---",
        "",
        "",
        "| a   | b |",
        "|-----|---|",
        "```json",
        '{ "a" : [ 1, 2.50 ] }',
        "```",
        "{",
        '  "key":  "two  spaces",',
        '  "n": 1e5',
        "}",
        "2026-01-01 10:00:00 INFO up after 3ms (try 1/2)",
        "2026-01-01 10:00:05 INFO up after 3ms (try 1/2)",
        "2026-01-02 11:00:05 INFO up after 3ms (try 1/2)",
        "    x = y  # please keep",
        "Translate this: the cat was able to sit.",
        "- ✅ **Do** it at all times",
        "Thank you in advance!",
        "trailing   ",
        'He said "in order to please" twice.',
    ]
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=14).map("\n".join),
    st.lists(PIECES, max_size=8).map(" ".join),
    st.text(max_size=60),
    st.text(alphabet='ab`*_#|-\n {}[]":,1.', max_size=60),
)


@given(TEXTS, st.sampled_from(list(CompressionLevel)))
@settings(max_examples=150, deadline=None)
def test_never_longer_idempotent_deterministic_and_nothing_damaged(text, level):
    result = compress(text, level, COUNT)
    assert result.tokens_before == COUNT(text)
    assert result.tokens_after == COUNT(result.text) <= result.tokens_before
    assert compress(result.text, level, COUNT).text == result.text
    assert compress(text, level, COUNT) == result
    assert bool(result.rewrites) == (result.text != text)


@given(st.lists(PIECES, max_size=12).map("\n\n".join), st.sampled_from(list(CompressionLevel)))
@settings(max_examples=80, deadline=None)
def test_an_independent_check_finds_no_damage(text, level):
    assert damage(text, short(text, level)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Could you please open the door? Thank you!", "Open door."),
        ("I would like you to act as a clerk.", "Act as clerk."),
        ("Please make sure that you do not use the network.", "Do not use network."),
        ("In order to save time, stop.", "To save time, stop."),
        ("The value must be greater than or equal to 5.", "Value must be >= 5."),
        ("Only a few of the 3 cats eat 2 times a day.", "Only a few of the 3 cats eat 2 times a day."),
    ],
)
def test_chatty_text_is_shortened(text, expected):
    assert short(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        'Translate "Could you please help me?" into French.',
        "Please translate to German: Could you please tell me where the station is?",
        "Explain the phrase in order to.",
        "def f(a):\n    # in order to please the linter\n    return a  +  b\n",
        "```\nin order to   please\n```",
        "    in order to please the linter;",
        "I would like you to please not delete it.",
        'He said ""it is basically a phase"" and left.',
        'def f():\n    """\n    In order to please.   \n    \n    For example:\n    """\n',
        'Is ""an elephant never forgets"" right?',
        "https://example.org/in%20order%20to",
    ],
)
def test_other_peoples_words_code_and_negation_are_left_alone(text):
    assert short(text) == text


def test_a_phrase_is_not_cut_out_of_a_longer_one():
    assert short("Use remove_columns with the name of the column.", MODERATE) == (
        "Use remove_columns with the name of the column."
    )


def test_material_behind_the_request_is_not_reworded():
    request, material = "Please summarise the text below.", "I was wondering if you could please call the bank."
    assert short(f"{request}\n\n{material}").endswith(material)
    assert short(f"{material}\n\nPlease summarise the text above.").startswith(material)


def test_minimal_keeps_every_word_and_moderate_keeps_the_articles():
    text = "Could you please open the door in order to let the cat in?"
    assert short(text, MINIMAL) == text
    assert short(text, MODERATE) == "Open the door to let the cat in."


def test_json_is_minified_with_numbers_keys_and_strings_as_spelled():
    body = '{\n  "b": 1.50,\n  "a": "two  spaces: {x}",\n  "b": 1e3\n}'
    assert short(f"Check:\n\n```json\n{body}\n```\n").split("\n")[3] == '{"b":1.50,"a":"two  spaces: {x}","b":1e3}'
    assert short(f"Check:\n\n{body}\n").split("\n")[2] == '{"b":1.50,"a":"two  spaces: {x}","b":1e3}'


@pytest.mark.parametrize("ask", ["Fix the indentation.", "Which key is on line 3?", "Pretty-print it."])
def test_json_keeps_its_layout_where_the_layout_is_asked_about(ask):
    text = f'{ask}\n\n{{\n  "a": 1,\n  "b": 2\n}}\n'
    assert '{\n  "a": 1,\n  "b": 2\n}' in short(text)


def test_broken_json_stays_as_it_is():
    text = '```json\n{\n  "a": 1,\n  // why\n}\n```\n'
    assert short(text) == text


def test_headings_lose_pictures_and_rules_but_ticks_and_crosses_stay():
    text = "# Role\n\n## 🎯 Goal\n\n- ✅ **Do** it\n- ❌ **Never** that\n\n---\n\n## Next\n\nA word.\n"
    assert short(text) == "# Role\n## Goal\n- ✅ Do it\n- ❌ Never that\n## Next\nA word.\n"


def test_globs_and_keyword_arguments_are_no_bold():
    text = "# Note\nUse **/src/** and **kwargs and **x or 2 ** 3 ** 4."
    assert short(text) == text


LOG = [
    "2026-03-01 10:00:01 ERROR gate timeout after 12ms (try 1/3, host n-1)",
    "2026-03-01 10:00:02 WARN pump low after 15ms (try 2/3, host n-2)",
    "2026-03-01 10:00:09 ERROR gate timeout after 12ms (try 1/3, host n-1)",
    "2026-03-01 10:00:09 ERROR gate timeout after 12ms (try 1/3, host n-1)",
    "2026-03-02 08:31:10 ERROR gate timeout after 12ms (try 1/3, host n-1)",
]


def test_repeated_log_lines_are_told_once_with_every_time():
    assert fold("\n".join(LOG)).split("\n") == [
        LOG[0] + " [4x, also 10:00:09 (2x), 2026-03-02 08:31:10]",
        LOG[1],
    ]


LOG_LINES = st.builds(
    "{} {} {} after {}ms (try {}/3, host n-{})".format,
    st.sampled_from(["2026-03-01 10:00:01", "2026-03-01 10:00:02,125", "2026-03-02T10:00:02Z", "10:15:16"]),
    st.sampled_from(["INFO", "ERROR"]),
    st.sampled_from(["gate up", "gate down"]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 2),
)


@given(st.lists(LOG_LINES, min_size=1, max_size=14))
def test_a_folded_log_unfolds_to_the_same_lines(lines):
    folded = fold("\n".join(lines))
    assert sorted(unfold(folded)) == sorted(lines)
    assert fold(folded) == folded
    named = name_tail(folded)
    assert sorted(unfold(named)) == sorted(lines)
    assert name_tail(named) == named


def test_the_earliest_and_the_latest_time_are_written_in_full():
    lines = [f"2026-03-01 {time} E x" for time in ("10:00:00", "09:00:00", "12:00:00", "11:00:00", "10:30:00")]
    assert fold("\n".join(lines)) == (
        "2026-03-01 10:00:00 E x [5x, also 2026-03-01 09:00:00, 2026-03-01 12:00:00, 11:00:00, 2026-03-01 10:30:00]"
    )


def test_a_stack_trace_stays_with_its_line():
    lines = [LOG[0], "  at f (a.py:1)", LOG[2], "  at g (a.py:2)", LOG[4]]
    assert fold("\n".join(lines)) == "\n".join(lines)


def test_logs_keep_their_lines_where_lines_are_asked_about():
    text = "How many lines are errors?\n\n" + "\n".join(LOG)
    assert short(text).endswith("\n".join(LOG))


# Texts on which a careless pattern takes time that grows with the square of their length (minutes, at this size).
HOSTILE = {
    "new lines": "\n" * 20_000,
    "brackets": "[\n" * 10_000,
    "curly": "{{" * 10_000,
    "one word": "a" * 20_000 + "@ please",
    "dots": "a." * 10_000 + "/@",
    "digits": "1" * 20_000 + " *",
    "nested bold": "**" * 500 + "a" + "**" * 500,
    "no colon": "translate " + "a b " * 5_000,
    "quotes": "'a " * 6_000,
    "stamps": "10:00:00 a\n" * 2_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_no_more_than_other_text_of_its_length(name):
    started = process_time()
    once = short(HOSTILE[name])
    assert process_time() - started < 2.0
    assert short(once) == once
