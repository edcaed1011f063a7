"""The diff loses nothing, whatever the texts."""

from hypothesis import given
from hypothesis import strategies as st

from dashboard.diff import MOST_LINES, MOST_WORDS, pieces


@given(st.text(), st.text())
def test_both_texts_can_be_read_from_the_pieces(before, after):
    found = pieces(before, after)
    assert "".join(text for kind, text in found if kind != "added") == before
    assert "".join(text for kind, text in found if kind != "removed") == after


def test_words_are_compared_in_short_texts_lines_in_long_ones_and_neither_in_huge_ones():
    assert pieces("please say hello", "say hello") == [("removed", "please "), ("same", "say hello")]
    line = "one two three\n"
    long = line * (MOST_WORDS // 4)
    assert pieces(long + "a b\n", long) == [("same", long), ("removed", "a b\n")]
    huge = line * MOST_LINES
    assert pieces(huge, "short") == [("removed", huge), ("added", "short")]
    assert pieces("", "") == []
