"""JSON from strangers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.wire.payload import MAX_DEPTH, Fields, parse_json
from optimizer.core.errors import InvalidRequest

plain_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text,
    lambda inner: st.lists(inner) | st.dictionaries(plain_text, inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(values, st.booleans())
def test_whatever_is_valid_comes_out_as_it_went_in(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_invalid(data):
    try:
        parse_json(data)
    except InvalidRequest as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a":1,"a":2}', "'a' appears twice"),
        (b'{"a":{"b":1,"b":2}}', "'b' appears twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"1e999", "too large"),
        (b"1" + b"0" * 30, "too large"),
        (b"9" * 5000, "too large"),
        (b"\xff", "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"{", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":"\n"}', "not valid JSON"),
        (b"[" * 100_000, "nested deeper"),
    ],
)
def test_what_json_must_not_hold_is_named(text, said):
    with pytest.raises(InvalidRequest, match=said):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "param"),
    [
        (rb'{"messages":[{"content":"x"},{"content":"a\u0000"}]}', "messages[1].content"),
        (rb'{"a":{"b":["\ud800"]}}', "a.b[0]"),
        (rb'{"a\u0000":1}', "a?"),
        (rb'{"a":1,"a":2}', "a"),
    ],
)
def test_the_bad_field_is_named(text, param):
    with pytest.raises(InvalidRequest) as refused:
        parse_json(text)
    assert refused.value.param == param
    str(refused.value).encode("utf-8")


def test_emoji_written_as_escapes_are_fine():
    assert parse_json(rb'"\ud83d\ude00 \u00e9"') == "😀 é"


def test_depth_is_bounded():
    parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InvalidRequest, match="nested deeper"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("read", "raw", "said"),
    [
        (lambda f: f.text("x"), 1, "x must be a string"),
        (lambda f: f.flag("x"), 1, "x must be true or false"),
        (lambda f: f.number("x", 0, 2), "1", "x must be a number"),
        (lambda f: f.number("x", 0, 2), True, "x must be a number"),
        (lambda f: f.number("x", 0, 2), 3, "x must be from 0 to 2"),
        (lambda f: f.integer("x", 0, 2), 1.5, "x must be a whole number"),
        (lambda f: f.integer("x", 0, 2), 10**18, "x must be from 0 to 2"),
        (lambda f: f.choice("x", ("a", "b")), "c", "x must be one of a, b"),
        (lambda f: f.items("x"), {}, "x must be a list"),
        (lambda f: f.nested("x"), [], "x must be an object"),
        (lambda f: list(f.objects("x")), [1], r"x\[0\] must be an object"),
        (lambda f: f.texts("x", 2), ["a", 1], "x must be a string or a list of strings"),
        (lambda f: f.texts("x", 2), ["a"] * 3, "x must have at most 2 items"),
        (lambda f: f.required_text("x"), "  ", "x must be given"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(read, raw, said):
    with pytest.raises(InvalidRequest, match=f"^options.{said}"):
        read(Fields({"x": raw}, "options"))


def test_null_is_absent():
    fields = Fields({"x": None})
    assert fields.text("x", "d") == "d" and fields.number("x", 0, 1) is None and fields.items("x") == []
    assert fields.flag("x", default=True) and fields.nested("x").raw == {} and not fields.has("x")


@pytest.mark.parametrize("piece", [b"[]", b'{"a":1}', b"1"])
def test_a_body_that_only_costs_time_is_refused_unparsed(piece):
    with pytest.raises(InvalidRequest, match="commas and brackets"):
        parse_json(b"[" + b",".join([piece] * 1_000_001))
