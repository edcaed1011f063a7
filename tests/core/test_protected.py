"""What a rewrite may not touch: regions, inline spans and the facts that are compared afterwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.protected import RegionKind, facts, inline, lost, regions

LINES = st.sampled_from(
    [
        "Plain words here.",
        "",
        "```python",
        "```",
        "~~~",
        "# Heading",
        "- item with `code`",
        "    indented()",
        '{"a": 1,',
        '"b": 2}',
        "[1,",
        "2]",
        "---",
        "name: x",
        "2026-01-01 10:00:00 INFO up",
        "2026-01-01 10:00:01 INFO up",
        "| a | b |",
        "return x;",
    ]
)


@given(st.lists(LINES, max_size=14), st.booleans())
def test_regions_joined_are_the_text(lines, final_newline):
    text = "\n".join(lines) + ("\n" if final_newline else "")
    assert "".join(region.text for region in regions(text)) == text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```python\nx = 1\n```\n", RegionKind.FENCE),
        ("```\nnever closed\nand on", RegionKind.FENCE),
        ("---\nname: a\ncolor: b\n---\n", RegionKind.FRONT),
        ('{\n  "a": [1, 2]\n}\n', RegionKind.JSON),
        ("def f(a):\n    return a\n", RegionKind.CODE),
        ("SELECT name FROM ports;\n", RegionKind.CODE),
        ("Jan  2 10:00:00 h sshd: x\nJan  2 10:00:01 h sshd: x\nJan  2 10:00:02 h sshd: x\n", RegionKind.LOG),
        ("Only words, and nothing else.\n", RegionKind.PROSE),
    ],
)
def test_each_kind_of_region_is_recognised(text, kind):
    assert [region.kind for region in regions(text)] == [kind]


def test_a_fence_inside_prose_does_not_swallow_the_prose_after_it():
    kinds = [region.kind for region in regions("Look:\n\n```\na\n```\n\nand then more words.\n")]
    assert kinds == [RegionKind.PROSE, RegionKind.FENCE, RegionKind.PROSE]


@pytest.mark.parametrize(
    "span",
    [
        "`git push`",
        "https://example.org/a?b=c",
        "ops@example.org",
        '"as it stands"',
        "“so said”",
        "'web-1'",
        "{{ name }}",
        "$ARGUMENTS",
        "<path>",
        "/var/log/x.log",
        "src/app/main.py",
        "--dry-run",
        "0 2 * * *",
        "C:\\temp\\x",
    ],
)
def test_inline_spans_are_protected_in_the_middle_of_a_sentence(span):
    text = f"please use the {span} that I gave you"
    assert span in {text[start:end] for start, end in inline(text)}


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        ("Do not stop.", "Do stop.", "not"),
        ("It must hold.", "It holds.", "must"),
        ("Don't go.", "Go.", "don't"),
        ("Wait 30 s, then 30 s.", "Wait 30 s.", "30"),
        ("Set max_size to 1.", "Set size to 1.", "max_size"),
        ("Call parseJson now.", "Call now.", "parseJson"),
        ("ask Marco about it", "ask about it", "Marco"),
        ("See https://a.example/b now", "See now", "https://a.example/b"),
    ],
)
def test_a_lost_fact_is_named(before, after, missing):
    assert missing in lost(before, after)


@given(st.text(max_size=60))
def test_nothing_is_lost_when_nothing_changed(text):
    assert lost(text, text) == ()
    assert all(times > 0 for times in facts(text).values())
