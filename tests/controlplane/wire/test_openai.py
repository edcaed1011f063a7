"""What /v1 bodies become, and what is refused."""

import pytest

from optimizer.core.request import Kind, Message
from optimizer.ports import Delta
from tests.fake_engine import FakeEngine, completed, embedding, started

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "auto", "messages": HELLO}
PIXEL = "iVBORw0KGgo="
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("add", "look_up")]


async def sent(client, engine, path="/v1/chat/completions", **body):
    answer = await client.post(path, {**CHAT, **body})
    assert answer.status == 200, answer.body
    return engine.requests[-1]


@pytest.mark.parametrize(
    ("asked", "wanted", "shown"),
    [
        ("auto", "auto", "tinyllama"),
        ("opus", "opus", "tinyllama"),
        ("sonnet:latest", "sonnet", "tinyllama"),
        ("tinyllama", "tinyllama", "tinyllama"),
        ("tinyllama:latest", "tinyllama", "tinyllama:latest"),
    ],
)
async def test_models_and_aliases_are_understood_and_the_answer_says_what_ran(client, engine, asked, wanted, shown):
    answer = await client.post("/v1/chat/completions", {**CHAT, "model": asked})
    assert engine.requests[0].wanted == wanted and answer.json()["model"] == shown


async def test_messages_become_ours(client, engine):
    conversation = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What"},
                {"type": "text", "text": "is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    request = await sent(client, engine, messages=conversation)
    assert request.kind is Kind.CHAT and request.protocol == "openai"
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "What\nis this?", images=(PIXEL,)),
        Message("assistant", "", tool_calls=({"id": "c1", "name": "add", "arguments": {"a": 1}},), thinking="hm"),
        Message("tool", "2", tool_call_id="c1", tool_name="add"),
    )


async def test_only_options_the_client_sent_are_passed_on(client, engine):
    request = await sent(client, engine, temperature=0, top_p=1, seed=7, stop="END", presence_penalty=0.5)
    assert request.options == {"temperature": 0.0, "top_p": 1.0, "seed": 7, "stop": ["END"], "presence_penalty": 0.5}


@pytest.mark.parametrize(
    ("wish", "used"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
async def test_response_format(client, engine, wish, used):
    assert (await sent(client, engine, response_format=wish)).format == used


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["add", "look_up"]),
        ("auto", ["add", "look_up"]),
        ("required", ["add", "look_up"]),
        ("none", []),
        ({"type": "function", "function": {"name": "add"}}, ["add"]),
    ],
)
async def test_tool_choice_narrows_the_tools(client, engine, choice, names):
    request = await sent(client, engine, tools=TOOLS, tool_choice=choice)
    assert [tool["function"]["name"] for tool in request.tools] == names


@pytest.mark.parametrize(("effort", "think"), [(None, None), ("none", False), ("minimal", "low"), ("high", "high")])
async def test_reasoning_effort(client, engine, effort, think):
    assert (await sent(client, engine, reasoning_effort=effort)).think == think


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,%%"}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"functions": [{}]}, "functions"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{}]}, "tools[0].function.name"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "zz"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
    ],
)
async def test_what_cannot_be_done_is_400_with_the_fields_name(client, engine, body, param):
    answer = await client.post("/v1/chat/completions", {**CHAT, **body})
    assert answer.status == 400 and answer.json()["error"]["param"] == param
    assert not engine.requests


async def test_harmless_fields_are_ignored(client, engine):
    request = await sent(
        client, engine, user="u", metadata={}, store=True, parallel_tool_calls=False, n=1, logprobs=False
    )
    assert request.options == {}


async def test_thinking_and_tool_calls_stream(connect):
    calls = tuple({"id": f"c{n}", "name": "add", "arguments": {"n": n}} for n in range(3))
    script = [
        started(),
        Delta(thinking="hm"),
        Delta("so"),
        Delta(tool_calls=calls[:2]),
        Delta(tool_calls=calls[2:]),
        completed("so", thinking="hm", tool_calls=calls),
    ]
    answer = await connect(FakeEngine(script)).post("/v1/chat/completions", {**CHAT, "stream": True})
    choices = [event["choices"][0] for event in answer.events()[:-1]]
    assert [c["delta"] for c in choices[1:3]] == [{"reasoning_content": "hm"}, {"content": "so"}]
    assert [call["index"] for c in choices[3:5] for call in c["delta"]["tool_calls"]] == [0, 1, 2]
    assert [c["finish_reason"] for c in choices] == [None] * 5 + ["tool_calls"]


async def test_a_whole_answer_carries_thinking_usage_and_length(connect):
    client = connect(FakeEngine([started(), completed("so", thinking="hm", done_reason="length")]))
    body = (await client.post("/v1/chat/completions", CHAT)).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "so" and choice["message"]["reasoning_content"] == "hm"
    assert choice["finish_reason"] == "length"
    assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


async def test_several_prompts_stream_with_their_index(client):
    body = {"model": "auto", "prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage, done = (await client.post("/v1/completions", body)).events()
    texts = {0: "", 1: ""}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "You said: a", 1: "You said: b"}
    assert [c["choices"][0]["finish_reason"] for c in chunks].count("stop") == 2
    assert usage["usage"]["total_tokens"] == 28 and done == "[DONE]"


async def test_completions_become_prompts_with_ids_of_their_own(client, engine):
    await client.post("/v1/completions", {"model": "auto", "prompt": ["a", "b"], "suffix": "z", "max_tokens": 3})
    assert len({request.id for request in engine.requests}) == 2
    for request in engine.requests:
        assert request.kind is Kind.GENERATE and request.suffix == "z" and request.options == {"num_predict": 3}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 3}, "logprobs"),
    ],
)
async def test_completions_that_cannot_be_done_are_400(client, body, param):
    answer = await client.post("/v1/completions", {"model": "auto", **body})
    assert answer.status == 400 and answer.json()["error"]["param"] == param


async def test_embeddings_become_inputs(client, engine):
    answer = await client.post("/v1/embeddings", {"model": "auto", "input": ["a", "bb"]})
    assert engine.requests[0].kind is Kind.EMBED and engine.requests[0].inputs == ("a", "bb")
    assert [row["embedding"] for row in answer.json()["data"]] == [[1.0, 1.0, 0.5], [2.0, 1.0, 0.5]]


async def test_many_vectors_keep_their_order(client):
    texts = ["x" * n for n in range(1, 101)]
    rows = (await client.post("/v1/embeddings", {"model": "auto", "input": texts})).json()["data"]
    assert [(row["index"], row["embedding"][0]) for row in rows] == [(n, n + 1.0) for n in range(100)]
    vectors = (await client.post("/api/embed", {"model": "auto", "input": texts})).json()["embeddings"]
    assert [vector[0] for vector in vectors] == [n + 1.0 for n in range(100)]


async def test_dimensions_cut_and_normalise(connect):
    client = connect(FakeEngine(embedding((3.0, 4.0, 12.0))))
    body = {"model": "auto", "input": "a", "dimensions": 2}
    assert (await client.post("/v1/embeddings", body)).json()["data"][0]["embedding"] == [0.6, 0.8]
    body["dimensions"] = 9
    assert (await client.post("/v1/embeddings", body)).json()["data"][0]["embedding"] == [3.0, 4.0, 12.0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": True}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
async def test_embeddings_that_cannot_be_done_are_400(client, body, param):
    answer = await client.post("/v1/embeddings", {"model": "auto", **body})
    assert answer.status == 400 and answer.json()["error"]["param"] == param


async def test_the_model_list_holds_models_and_aliases(client):
    ids = [row["id"] for row in (await client.get("/v1/models")).json()["data"]]
    assert ids == ["tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b", "auto", "opus", "sonnet", "default"]
    assert (await client.get("/v1/models/qwen2.5-coder:7b")).json()["id"] == "qwen2.5-coder:7b"
    missing = await client.get("/v1/models/org/zz")
    assert missing.status == 404 and missing.json()["error"]["code"] == "model_not_found"
