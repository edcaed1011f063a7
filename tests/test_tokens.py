"""The token counter: exact by the bundled tokenizer, from the installed package alone, with a bounded memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import tokens
from optimizer.core.errors import ConfigurationError
from optimizer.tokens import LlamaTokenCounter

COUNT = LlamaTokenCounter()
TOKENIZER = tokens._tokenizer()


@given(st.text(alphabet="ab ABz09_-.,:\n\t{}[]\"'#*éß€漢🚀", max_size=80))
@settings(max_examples=150, deadline=None)
def test_counting_line_by_line_gives_what_the_whole_tokenizer_gives(text):
    assert COUNT(text) == len(TOKENIZER.encode(text, add_special_tokens=False).ids)


def test_the_empty_text_costs_nothing_and_a_word_something():
    assert COUNT("") == 0
    assert COUNT("Hello") == 1


def test_special_tokens_written_as_text_are_counted_as_text():
    assert COUNT("</s>") > 1


def test_counting_again_asks_the_tokenizer_only_for_the_line_that_changed():
    counter = LlamaTokenCounter()
    asked: list[str] = []
    tokenize = counter._tokenize
    counter._tokenize = lambda line: asked.append(line) or tokenize(line)
    counter("one\ntwo\nthree")
    asked.clear()
    counter("one\n2\nthree")
    assert asked == ["2"]


def test_the_memo_is_bounded():
    counter = LlamaTokenCounter(memo_characters=1000)
    for number in range(200):
        counter(f"line {number}")
    assert counter._memo_size <= 1000
    assert counter("line 0") == COUNT("line 0")


def test_a_missing_package_is_the_operators_fault_and_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="make setup"):
        LlamaTokenCounter()
