"""The sixteen things clients of the two protocols rely on, each as a test (docs/api.md lists them)."""

import asyncio
import base64
import json
import struct

import pytest

from controlplane.wire import token_ids
from optimizer.core.errors import GenerationFailed, ModelNotFound, UnsupportedFeature
from optimizer.ports import Delta, Waiting
from tests.fake_engine import FakeEngine, Pause, answering, completed, started

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "tinyllama", "messages": HELLO}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLS = ({"id": "c1", "name": "add", "arguments": {"a": 1}},)


# 1
async def test_errors_have_each_protocols_own_shape(client):
    for path in ("/v1/chat/completions", "/v1/nothing", "/v1", "/v1/models/zz"):
        error = (await client("POST" if "chat" in path else "GET", path, b"{")).json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and isinstance(error["message"], str)
    for path in ("/api/chat", "/api/nothing", "/api"):
        answer = await client.post(path, b"{")
        assert isinstance(answer.json()["error"], str) and set(answer.json()) == {"error"}
        assert answer.headers["content-type"] == "application/json"


async def test_error_codes_clients_match_on(client):
    assert (await client.get("/v1/models", key="bad")).json()["error"]["code"] == "invalid_api_key"
    answer = await client.post("/v1/chat/completions", {**CHAT, "model": "zz"})
    assert answer.json()["error"]["code"] == "model_not_found"


# 2
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_an_unknown_model_is_404_before_any_stream(client, engine, path):
    answer = await client.post(path, {"model": "zz", "messages": HELLO, "stream": True})
    assert answer.status == 404 and "model 'zz' not found" in answer.body.decode()
    assert answer.headers["content-type"] == "application/json"
    assert not engine.requests


async def test_a_model_that_only_the_engine_misses_is_404_too(connect):
    client = connect(FakeEngine([ModelNotFound("tinyllama")]))
    for path in ("/v1/chat/completions", "/api/chat"):
        answer = await client.post(path, {**CHAT, "stream": True})
        assert answer.status == 404 and answer.headers["content-type"] == "application/json"


# 3
@pytest.mark.parametrize(
    ("sent", "used"),
    [({"max_completion_tokens": 5}, 5), ({"max_tokens": 6}, 6), ({"max_tokens": 9, "max_completion_tokens": 4}, 4)],
)
async def test_max_completion_tokens_is_honoured_like_max_tokens(client, engine, sent, used):
    await client.post("/v1/chat/completions", {**CHAT, **sent})
    assert engine.requests[0].options == {"num_predict": used}


# 4
async def test_ids_are_unique_and_every_answer_carries_a_request_id(client):
    answers = [await client.post("/v1/chat/completions", CHAT) for _ in range(20)]
    ids = {answer.json()["id"] for answer in answers}
    assert len(ids) == 20 and all(i.startswith("chatcmpl-") for i in ids)
    others = [
        await client.get("/"),
        await client.get("/v1/zz"),
        await client.get("/v1/models", key=""),
        await client.post("/api/chat", b"{"),
        await client("OPTIONS", "/v1/models"),
        await client.post("/api/chat", CHAT),
    ]
    assert len({answer.headers["x-request-id"] for answer in [*answers, *others]}) == 26


# 5
async def test_completions_take_a_list_of_prompts(client):
    answer = await client.post("/v1/completions", {"model": "tinyllama", "prompt": ["one", "two", "three"]})
    choices = answer.json()["choices"]
    assert [(c["index"], c["text"]) for c in choices] == [
        (i, f"You said: {t}") for i, t in enumerate(["one", "two", "three"])
    ]
    assert answer.json()["usage"] == {"prompt_tokens": 33, "completion_tokens": 9, "total_tokens": 42}


async def test_embeddings_come_as_base64_when_asked(client):
    body = {"model": "tinyllama", "input": ["a", "four"], "encoding_format": "base64"}
    rows = (await client.post("/v1/embeddings", body)).json()["data"]
    decoded = [struct.unpack("<3f", base64.b64decode(row["embedding"])) for row in rows]
    assert decoded == [(1.0, 1.0, 0.5), (4.0, 1.0, 0.5)]


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
async def test_token_ids_as_embedding_input_say_what_to_set(client, monkeypatch, ids):
    monkeypatch.setattr(token_ids, "decoder", lambda: None)  # as without the optional package
    answer = await client.post("/v1/embeddings", {"model": "tinyllama", "input": ids})
    assert answer.status == 400 and answer.json()["error"]["param"] == "input"
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


# 6
async def test_an_sse_stream_keeps_its_order(connect):
    client = connect(FakeEngine(answering("Hel", "lo")))
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post("/v1/chat/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = answer.events()
    assert done == "[DONE]"
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == 14
    assert len({c["id"] for c in [*chunks, usage]}) == len({c["created"] for c in [*chunks, usage]}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["delta"].get("content") for c in chunks] == ["", "Hel", "lo", None]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert all(c["object"] == "chat.completion.chunk" and c["usage"] is None for c in chunks)


async def test_usage_comes_only_if_asked(client):
    answer = await client.post("/v1/chat/completions", {**CHAT, "stream": True})
    assert all("usage" not in event for event in answer.events()[:-1])
    assert all(event["choices"] for event in answer.events()[:-1])


async def test_a_failure_mid_stream_is_an_error_event_and_no_done(connect):
    client = connect(FakeEngine([started(), Delta("Hel"), GenerationFailed("the model process ended")]))
    answer = await client.post("/v1/chat/completions", {**CHAT, "stream": True})
    assert answer.status == 200
    assert answer.events()[-1]["error"]["message"] == "the model process ended"
    assert "[DONE]" not in answer.events()


async def test_a_stream_with_a_bad_key_is_a_plain_error(client):
    answer = await client.post("/v1/chat/completions", {**CHAT, "stream": True}, key="bad")
    assert answer.status == 401 and answer.headers["content-type"] == "application/json"


# 7
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [("/api/chat", {"messages": HELLO}, "message"), ("/api/generate", {"prompt": "hello"}, "response")],
)
async def test_ndjson_streams_by_default_and_ends_with_done(client, path, body, field):
    answer = await client.post(path, {"model": "tinyllama", **body})
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = answer.lines()
    assert [piece["done"] for piece in pieces] == [False, False] and last["done"] is True
    texts = [piece[field]["content"] if field == "message" else piece[field] for piece in pieces]
    assert texts == ["You said: ", "hello"]
    assert last["done_reason"] == "stop"
    assert last["total_duration"] == 750_000_000 and last["eval_duration"] == 200_000_000
    assert (last["prompt_eval_count"], last["eval_count"], last["load_duration"]) == (11, 3, 500_000_000)


async def test_a_failure_mid_stream_is_an_error_line(connect):
    client = connect(FakeEngine([started(), Delta("Hel"), GenerationFailed("the model process ended")]))
    answer = await client.post("/api/chat", CHAT)
    assert answer.lines()[-1] == {"error": "the model process ended"}
    assert not any(line.get("done") for line in answer.lines())


# 8
@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), ("5m", "load"), (0, "unload"), ("0s", "unload")])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_empty_messages_load_or_unload_nothing_on_api(client, engine, path, keep_alive, reason):
    answer = await client.post(path, {"model": "tinyllama", "messages": [], "keep_alive": keep_alive})
    assert answer.status == 200 and answer.lines()[-1]["done"] is True
    assert answer.lines()[-1]["done_reason"] == reason
    assert not engine.requests


async def test_empty_messages_are_400_on_v1(client):
    answer = await client.post("/v1/chat/completions", {"model": "tinyllama", "messages": []})
    assert answer.status == 400 and answer.json()["error"]["param"] == "messages"


# 9
async def test_tool_arguments_are_a_string_on_v1_and_an_object_on_api(connect):
    script = [started(), completed(tool_calls=CALLS)]
    client = connect(FakeEngine(script))
    body = {**CHAT, "tools": [TOOL], "stream": False}
    choice = (await client.post("/v1/chat/completions", body)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    message = (await client.post("/api/chat", body)).json()["message"]
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


async def test_a_model_without_tools_is_400(connect):
    client = connect(FakeEngine([UnsupportedFeature("tinyllama does not support tools", param="tools")]))
    for path in ("/v1/chat/completions", "/api/chat"):
        answer = await client.post(path, {**CHAT, "tools": [TOOL]})
        assert answer.status == 400 and "does not support tools" in answer.body.decode()


# 10
async def test_api_takes_any_content_type(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.post("/api/chat", CHAT, headers=headers)).status == 200


async def test_a_wrong_method_is_405_with_allow(client):
    answer = await client.get("/api/chat")
    assert answer.status == 405 and answer.headers["allow"] == "POST, OPTIONS"
    assert (await client.post("/v1/models")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_a_trailing_slash_is_404_not_a_redirect(client):
    for path in ("/v1/chat/completions/", "/v1/models/", "/api/chat/", "/api/tags/"):
        assert (await client.post(path, CHAT)).status == 404


async def test_probes_need_no_key(client):
    for path in ("/", "/api/version", "/api/tags"):
        answer = await client("HEAD", path, key="")
        assert answer.status == 200 and answer.body == b""
    assert (await client.get("/", key="")).body == b"Ollama is running"
    assert (await client.get("/api/version", key="")).json()["version"]
    assert (await client.get("/api/tags", key="")).status == 401


# 11
async def test_401_comes_before_the_body_and_the_model(connect):
    client = connect(FakeEngine(), max_body_bytes=10)
    answer = await client.post("/v1/chat/completions", {"model": "zz", "x": "y" * 100}, key="sk-secret-thing")
    assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert "sk-secret-thing" not in answer.body.decode()


# 12
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"tinyllama","messages":[{"role":"user","content":"a\\u0000b"}]}',
        b'{"model":"tinyllama","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"tinyllama","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
        b'{"model":"tinyllama","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"tinyllama","messages":[],"seed":1' + b"0" * 5000 + b"}",
        b"\xff\xfe",
        b"",
        b"[]",
        b'"text"',
    ],
)
async def test_bodies_that_trip_frameworks_are_400(client, body):
    for path in ("/v1/chat/completions", "/api/chat", "/v1/embeddings", "/api/generate"):
        answer = await client.post(path, body)
        assert answer.status == 400 and answer.json()["error"]


async def test_a_body_beyond_djangos_limit_is_fine_and_beyond_ours_is_413(connect, engine):
    client = connect(engine, max_body_bytes=4 * 1024 * 1024)
    body = {"model": "tinyllama", "messages": [{"role": "user", "content": "x" * 3_000_000}], "stream": False}
    assert (await client.post("/api/chat", body)).status == 200
    body["messages"][0]["content"] *= 2
    answer = await client.post("/api/chat", body)
    assert answer.status == 413 and "larger than" in answer.json()["error"]


# 13
async def test_a_preflight_carries_no_key_and_allows_the_openai_clients_headers(client):
    headers = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-lang",
    }
    answer = await client("OPTIONS", "/v1/chat/completions", headers=headers, key="")
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    assert "POST" in answer.headers["access-control-allow-methods"]


# 14
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_a_client_that_leaves_stops_the_work(connect, path, streamed):
    engine = FakeEngine([started(), Delta("a"), Pause(asyncio.Event()), Delta("b")])
    live = connect(engine).open("POST", path, {**CHAT, "stream": streamed})
    await engine.until_running(1)
    await live.leave()
    assert engine.running == 0 and engine.closed_early == 1


async def test_a_client_that_leaves_while_waiting_stops_the_work(connect):
    engine = FakeEngine([Waiting(3, 1.5, "busy"), Pause(asyncio.Event())])
    live = connect(engine).open("POST", "/api/chat", CHAT)
    await engine.until_running(1)
    await live.leave()
    assert engine.running == 0 and engine.closed_early == 1


async def test_fifty_streams_at_once_never_mix(client):
    bodies = [{**CHAT, "messages": [{"role": "user", "content": f"number {n}"}], "stream": True} for n in range(50)]
    answers = await asyncio.gather(*(client.post("/v1/chat/completions", body) for body in bodies))
    for n, answer in enumerate(answers):
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in answer.events()[:-1])
        assert text == f"You said: number {n}"


# 15: OLLAMA_API_KEY is in test_clients.py
async def test_a_call_without_a_key_is_told_how_to_send_one(client):
    answer = await client.post("/api/embed", {"model": "tinyllama", "input": "a"}, key="")
    assert answer.status == 401 and "Authorization: Bearer" in answer.json()["error"]


# 16 is about test models, not the wire: nothing here chooses threads.
async def test_runner_options_of_clients_never_reach_the_engine(client, engine):
    options = {"num_thread": 8, "num_ctx": 32768, "num_gpu": 99, "temperature": 0.1}
    await client.post("/api/chat", {**CHAT, "options": options})
    assert engine.requests[0].options == {"temperature": 0.1}
