"""A batch as JSON lines: both shapes are taken, one bad line refuses the file and is named."""

import json

import pytest

from controlplane.batch_lines import MAX_LINE_BYTES, read
from optimizer.core.errors import InvalidRequest

GOOD = '{"prompt": "one"}'
OPENAI = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "sonnet",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 9,
        "stop": "x",
    },
}


def test_tasks_and_openai_lines_are_taken_and_empty_lines_passed_over():
    first, second = read(f"\n{GOOD}\r\n\n{json.dumps(OPENAI)}".encode(), 10)
    assert (first.number, first.custom_id, first.body) == (2, "", {"prompt": "one"})
    assert (second.number, second.custom_id) == (4, "a")
    assert second.body == {
        "model": "sonnet", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stop": ["x"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("7", "no JSON object"),
        ('{"prompt": ""}', "prompt or messages"),
        ('{"prompt": "x", "colour": "red"}', "colour"),
        ('{"prompt": "x", "stream": true}', "stream"),
        ('{"prompt": "x", "wait": true}', "waited"),
        ('{"prompt": "x", "max_tokens": "many"}', "max_tokens"),
        ('{"prompt": "x", "custom_id": 7}', "custom_id"),
        ('{"prompt": "x", "custom_id": "%s"}' % ("c" * 129), "custom_id"),
        ('{"prompt": "a\\u0000b"}', "u0000"),
        ('{"prompt": "\\ud800"}', "surrogate"),
        ('{"custom_id": "a", "body": 7}', "body"),
        ('{"custom_id": "a", "body": {"prompt": "x"}, "method": "GET"}', "method"),
        ('{"custom_id": "a", "body": {"prompt": "x"}, "url": "http://elsewhere"}', "url"),
        ('{"custom_id": "a", "body": {"prompt": "x"}, "webhook_url": "http://elsewhere"}', "webhook_url"),
        ('{"body": {"messages": [{"role": "user", "content": [{"type": "text"}]}]}}', "content"),
        ("[" * 5000, "line 3"),
    ],
)
def test_a_bad_line_is_named_with_its_number(line, says):
    with pytest.raises(InvalidRequest, match=says) as refused:
        read(f"{GOOD}\n\n{line}\n{GOOD}".encode(), 10)
    assert str(refused.value).startswith("line 3: ") and refused.value.param.startswith("line 3")


def test_bytes_that_are_no_text_and_lines_that_are_too_long_or_too_many():
    with pytest.raises(InvalidRequest, match=r"line 1: .*UTF-8"):
        read(b"\xff\xfe", 10)
    with pytest.raises(InvalidRequest, match="line 1: longer"):
        read(b'{"prompt": "' + b"x" * MAX_LINE_BYTES + b'"}', 10)
    with pytest.raises(InvalidRequest, match=r"line 4: .*at most 3"):
        read("\n".join([GOOD] * 4).encode(), 3)
    for empty in (b"", b"\n \n"):
        with pytest.raises(InvalidRequest, match="empty"):
            read(empty, 10)
    with pytest.raises(InvalidRequest, match=r"line 2: .*line 1"):
        read(b'{"prompt": "x", "custom_id": "c"}\n{"prompt": "y", "custom_id": "c"}', 10)
