"""What /api bodies become, the model routes, and what is refused."""

import pytest

from optimizer.core.request import Kind, Message
from optimizer.ports import Delta
from tests.fake_engine import FakeEngine, completed, started

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "auto", "messages": HELLO}
PIXEL = "iVBORw0KGgo="


async def test_messages_become_ours(client, engine):
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is this?", "images": [PIXEL]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "2", "tool_name": "add"},
    ]
    assert (await client.post("/api/chat", {**CHAT, "messages": conversation})).status == 200
    (request,) = engine.requests
    assert request.kind is Kind.CHAT and request.protocol == "ollama" and request.stream
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "What is this?", images=(PIXEL,)),
        Message("assistant", "", tool_calls=({"id": "", "name": "add", "arguments": {"a": 1}},)),
        Message("tool", "2", tool_name="add"),
    )


async def test_generate_becomes_a_prompt_with_its_system(client, engine):
    body = {"model": "auto", "prompt": "hello", "system": "Be brief.", "suffix": "z", "images": [PIXEL]}
    await client.post("/api/generate", body)
    await client.post("/api/generate", {**body, "raw": True, "images": None})
    templated, raw = engine.requests
    assert templated.kind is Kind.GENERATE and templated.suffix == "z"
    assert templated.messages == (Message("system", "Be brief."), Message("user", "hello", images=(PIXEL,)))
    assert raw.raw and raw.messages == (Message("user", "hello"),)


async def test_options_keep_ollamas_names(client, engine):
    options = {"temperature": 0.2, "top_k": 5.0, "num_predict": -1, "stop": ["a", ""], "seed": 3, "unknown": object}
    options["unknown"] = [1]
    await client.post("/api/chat", {**CHAT, "options": options})
    assert engine.requests[0].options == {
        "temperature": 0.2,
        "num_predict": -1,
        "seed": 3,
        "top_k": 5,
        "stop": ["a"],
    }


@pytest.mark.parametrize(
    ("sent", "used"), [(None, None), ("", None), ("json", "json"), ({"type": "object"}, {"type": "object"})]
)
async def test_format(client, engine, sent, used):
    await client.post("/api/chat", {**CHAT, "format": sent})
    assert engine.requests[0].format == used


@pytest.mark.parametrize(
    ("sent", "used"), [(None, None), (True, True), (False, False), ("low", "low"), ("max", "high")]
)
async def test_think(client, engine, sent, used):
    await client.post("/api/chat", {**CHAT, "think": sent})
    assert engine.requests[0].think is used or engine.requests[0].think == used


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/chat", {"model": None}, "model"),
        ("/api/chat", {"messages": {}}, "messages"),
        ("/api/chat", {"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
        ("/api/chat", {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ("/api/chat", {"messages": [{"role": "user", "images": ["%%"]}]}, "messages[0].images[0]"),
        ("/api/chat", {"messages": [{"role": "user", "images": [5]}]}, "messages[0].images[0]"),
        ("/api/chat", {"options": []}, "options"),
        ("/api/chat", {"options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"options": {"num_ctx": "big"}}, "options.num_ctx"),
        ("/api/chat", {"keep_alive": "soon"}, "keep_alive"),
        ("/api/chat", {"keep_alive": True}, "keep_alive"),
        ("/api/chat", {"format": "xml"}, "format"),
        ("/api/chat", {"think": "much"}, "think"),
        ("/api/chat", {"stream": "yes"}, "stream"),
        ("/api/chat", {"logprobs": True}, "probabilities"),
        ("/api/chat", {"tools": [{"function": {}}]}, "tools[0].function.name"),
        ("/api/generate", {"prompt": 5}, "prompt"),
        ("/api/generate", {"prompt": "a", "template": "{{ . }}"}, "template"),
        ("/api/generate", {"prompt": "a", "context": [1, 2]}, "context"),
        ("/api/embed", {"input": [1]}, "input"),
        ("/api/embed", {"input": ["a", ""]}, "input"),
        ("/api/embeddings", {"prompt": ["a"]}, "prompt"),
    ],
)
async def test_what_cannot_be_done_is_400_and_names_the_field(client, engine, path, body, field):
    answer = await client.post(path, {**CHAT, **body})
    assert answer.status == 400 and field in answer.json()["error"]
    assert not engine.requests


async def test_thinking_and_tool_calls_stream(connect):
    call = {"id": "c1", "name": "add", "arguments": {"a": 1}}
    script = [
        started(),
        Delta(thinking="hm"),
        Delta("so"),
        Delta(tool_calls=(call,)),
        completed("so", tool_calls=(call,)),
    ]
    lines = (await connect(FakeEngine(script)).post("/api/chat", CHAT)).lines()
    messages = [line["message"] for line in lines]
    assert messages[0] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert messages[1] == {"role": "assistant", "content": "so"}
    assert messages[2]["tool_calls"] == [{"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}}]
    assert messages[3] == {"role": "assistant", "content": ""} and lines[3]["done"]


async def test_embed_and_its_older_form(client, engine):
    answer = (await client.post("/api/embed", {"model": "tinyllama:latest", "input": ["a", "bb"]})).json()
    assert answer["embeddings"] == [[1.0, 1.0, 0.5], [2.0, 1.0, 0.5]] and answer["model"] == "tinyllama:latest"
    assert answer["prompt_eval_count"] == 11 and answer["total_duration"] == 750_000_000
    assert (await client.post("/api/embeddings", {"model": "auto", "prompt": "a"})).json() == {
        "embedding": [1.0, 1.0, 0.5]
    }
    assert (await client.post("/api/embed", {"model": "auto", "input": ""})).json()["embeddings"] == []
    assert (await client.post("/api/embeddings", {"model": "auto"})).json() == {"embedding": []}
    assert len(engine.requests) == 2


async def test_tags_list_served_models_and_aliases(client):
    rows = {row["name"]: row for row in (await client.get("/api/tags")).json()["models"]}
    assert list(rows)[:3] == ["tinyllama:latest", "qwen2.5-coder:7b", "deepseek-r1:8b"]
    assert rows["tinyllama:latest"]["size"] == 608 * 2**20 and rows["tinyllama:latest"]["digest"] == "sha256:abc"
    assert rows["opus:latest"]["details"]["parent_model"] == "deepseek-r1:8b" and "auto:latest" in rows


async def test_ps_lists_what_is_in_memory(client):
    (row,) = (await client.get("/api/ps")).json()["models"]
    assert (row["name"], row["size"], row["size_vram"]) == ("tinyllama:latest", 800 * 2**20, 760 * 2**20)
    assert row["context_length"] == 2048


@pytest.mark.parametrize(
    ("asked", "parent", "capability"),
    [
        ("tinyllama:latest", "", "completion"),
        ("sonnet", "qwen2.5-coder:7b", "tools"),
        ("auto", "deepseek-r1:8b", "thinking"),
    ],
)
async def test_show_tells_what_a_model_or_alias_can_do(client, asked, parent, capability):
    body = (await client.post("/api/show", {"name": asked})).json()
    assert body["details"]["parent_model"] == parent and capability in body["capabilities"]


async def test_show_of_an_unknown_model_is_404(client):
    answer = await client.post("/api/show", {"model": "zz"})
    assert answer.status == 404 and "not found" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:abc"),
    ],
)
async def test_managing_models_is_the_administrators(client, method, path):
    answer = await client(method, path, {"model": "tinyllama"})
    assert answer.status == 403 and "administrator" in answer.json()["error"]
