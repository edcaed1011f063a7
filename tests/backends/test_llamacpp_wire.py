"""What goes to llama.cpp's server and what its lines mean; pure, no model."""

import json
from typing import Any

import pytest

from optimizer.backends import llamacpp_wire as wire
from optimizer.backends.llamacpp_models import EMBEDDED_MODELS
from optimizer.core.errors import ContextOverflow, GenerationFailed, InvalidRequest, UnsupportedFeature
from optimizer.core.request import Message
from optimizer.ports import Call, Delta, Finished

HELLO = (Message("user", "Hello"),)


def body_of(call: Call, stops: tuple[str, ...] = (), slot: int | None = 0) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(wire.request(call, stops, slot)[1])
    return body


def test_options_are_renamed_and_load_options_left_out() -> None:
    options = {
        "num_predict": 7, "temperature": 0.3, "top_k": 5, "repeat_penalty": 1.2, "typical_p": 0.9, "num_ctx": 99,
        "num_gpu": 1, "seed": 4, "stop": "END", "min_p": None,
    }  # fmt: skip
    body = body_of(Call("m", HELLO, options), stops=("\nUser:",), slot=1)
    assert body["max_tokens"] == 7 and body["id_slot"] == 1 and body["seed"] == 4
    assert (body["temperature"], body["top_k"], body["repeat_penalty"], body["typ_p"]) == (0.3, 5, 1.2, 0.9)
    assert body["stop"] == ["END", "\nUser:"]
    assert not {"num_ctx", "num_gpu", "num_predict", "min_p"} & set(body)


@pytest.mark.parametrize("limit", [None, -1, -2])
def test_no_limit_is_minus_one(limit: int | None) -> None:
    assert body_of(Call("m", HELLO, {"num_predict": limit}))["max_tokens"] == -1


def test_a_raw_prompt_goes_to_the_completion_path() -> None:
    path, content = wire.request(Call("m", HELLO, {"num_predict": 3, "stop": ["x"]}, raw=True), ("\nUser:",), None)
    body = json.loads(content)
    assert path == wire.RAW_PATH and "id_slot" not in body
    assert (body["prompt"], body["n_predict"], body["stop"]) == ("Hello", 3, ["x"])


def test_formats_become_response_formats() -> None:
    schema = {"type": "object"}
    assert body_of(Call("m", HELLO, format="json"))["response_format"] == {"type": "json_object"}
    assert body_of(Call("m", HELLO, format=schema))["response_format"]["json_schema"] == {"schema": schema}
    assert body_of(Call("m", HELLO, format=schema, raw=True))["json_schema"] == schema


def test_tool_calls_travel_as_json_strings() -> None:
    called = Message("assistant", "", tool_calls=({"id": "1", "name": "add", "arguments": {"a": 1}},))
    result = Message("tool", "2", tool_call_id="1", tool_name="add")
    assistant, tool = body_of(Call("m", (called, result)))["messages"]
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert tool == {"role": "tool", "content": "2", "tool_call_id": "1", "name": "add"}


def test_a_lone_surrogate_does_not_break_the_request() -> None:
    assert body_of(Call("m", (Message("user", "a\ud800b"),)))["messages"][0]["content"] == "a?b"


def test_unsupported_features_name_the_field() -> None:
    with pytest.raises(UnsupportedFeature, match="does not support tools") as caught:
        wire.check(Call("m", HELLO, tools=({},)), EMBEDDED_MODELS[0])
    assert caught.value.param == "tools"


def items_of(*events: Any, strip_leading: bool = False) -> list[Delta | Finished]:
    reader = wire.Reader(strip_leading=strip_leading)
    lines = [f"data: {json.dumps(event)}" for event in events]
    return [item for line in (*lines, "", "data: [DONE]") for item in reader.feed(line)]


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    "timings": {"prompt_ms": 500.0, "predicted_ms": 250.0},
}


def test_a_chat_stream_is_deltas_and_a_count() -> None:
    items = items_of(
        {**chunk(role="assistant", content=None), "prompt_progress": {"processed": 64}},
        chunk(reasoning_content="hm"),
        chunk(content="Hi"),
        chunk("length"),
        USAGE,
    )
    assert items == [Delta(thinking="hm"), Delta(text="Hi"), Finished("length", 9, 2, prefill_s=0.5, decode_s=0.25)]


def test_a_raw_stream_is_deltas_and_a_count() -> None:
    last = {"content": "", "stop": True, "stop_type": "eos", "tokens_evaluated": 4, "tokens_predicted": 1}
    assert items_of({"content": "Hi", "stop": False}, last) == [Delta("Hi"), Finished("stop", 4, 1)]


def test_leading_blanks_go_only_at_the_start() -> None:
    items = items_of(chunk(content=" "), chunk(content=" Hi"), chunk(content=" you"), strip_leading=True)
    assert items == [Delta("Hi"), Delta(" you")]


def test_tool_calls_are_put_together_from_pieces() -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}
    items = items_of(
        chunk(tool_calls=[first]), chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]), USAGE
    )
    assert items[0] == Delta(tool_calls=({"id": "c1", "name": "add", "arguments": {"a": 1}},))
    with pytest.raises(GenerationFailed, match="add"):
        items_of(chunk(tool_calls=[first]), USAGE)


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(GenerationFailed, match="out of slots"):
        items_of({"error": {"message": "out of slots", "type": "server_error"}})
    with pytest.raises(ContextOverflow):
        wire.Reader().feed('error: {"message": "too long", "type": "exceed_context_size_error"}')


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (400, b'{"error": {"message": "too long", "type": "exceed_context_size_error"}}', ContextOverflow),
        (400, b'{"error": {"message": "bad schema", "type": "invalid_request_error"}}', InvalidRequest),
        (501, b'{"error": {"message": "no embeddings", "type": "not_supported_error"}}', UnsupportedFeature),
        (500, b"<html>", GenerationFailed),
        (503, b'{"error": "loading"}', GenerationFailed),
    ],
)
def test_refusals_have_their_place_in_the_error_tree(status: int, content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        raise wire.refusal(status, content)
