"""The official clients, in process: what they parse is what we mean."""

import httpx
import httpx2
import ollama
import openai
import pytest

from controlplane.wire import WireApp
from optimizer.core.errors import AgentLimit, GenerationFailed
from optimizer.core.request import AgentProfile
from optimizer.ports import Delta, Waiting
from tests.fake_engine import FakeEngine, completed, started

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALLS = ({"id": "c1", "name": "add", "arguments": {"a": 1}},)


def agent_for(key):
    return AgentProfile("scribe-01", "default") if key == "good-key" else None


def app_of(script=None):
    return WireApp(FakeEngine(script) if script else FakeEngine(), agent_for, "0.1.0")


def openai_client(app, key="good-key"):
    transport = httpx2.ASGITransport(app)
    return openai.AsyncOpenAI(
        base_url="http://narrowgauge/v1",
        api_key=key,
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=transport, base_url="http://narrowgauge"),
    )


def ollama_client(app, **rest):
    return ollama.AsyncClient("http://narrowgauge", transport=httpx.ASGITransport(app), **rest)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "good-key")


async def test_openai_chat_whole_and_streamed():
    async with openai_client(app_of()) as client:
        whole = await client.chat.completions.create(model="auto", messages=HELLO)
        assert whole.choices[0].message.content == "You said: hello" and whole.usage.total_tokens == 14
        text, usage = "", None
        stream = await client.chat.completions.create(
            model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        assert text == "You said: hello" and usage.total_tokens == 14


async def test_openai_headers_are_readable():
    async with openai_client(app_of()) as client:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
        assert (
            raw.headers["x-narrowgauge-model"] == "tinyllama" and raw.parse()._request_id == raw.headers["x-request-id"]
        )


async def test_openai_tools_completions_embeddings_and_models():
    async with openai_client(app_of([started(), completed(tool_calls=CALLS)])) as client:
        answer = await client.chat.completions.create(model="auto", messages=HELLO, tools=[TOOL])
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    async with openai_client(app_of()) as client:
        assert len((await client.completions.create(model="auto", prompt=["a", "b"])).choices) == 2
        vectors = await client.embeddings.create(model="auto", input=["a", "bb"])  # asks for base64 by itself
        assert [row.embedding for row in vectors.data] == [[1.0, 1.0, 0.5], [2.0, 1.0, 0.5]]
        assert "tinyllama" in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve("qwen2.5-coder:7b")).id == "qwen2.5-coder:7b"


async def test_openai_errors_are_its_own_classes():
    async with openai_client(app_of(), key="bad") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    async with openai_client(app_of()) as client:
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.chat.completions.create(model="zz", messages=HELLO, stream=True)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="auto", messages=[])
        assert refused.value.param == "messages"
    async with openai_client(app_of([AgentLimit("too many", retry_after_s=3)])) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        assert limited.value.response.headers["retry-after"] == "3"
    async with openai_client(app_of([started(), Delta("a"), GenerationFailed("it broke")])) as client:
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="it broke"):
            async for _ in stream:
                pass


async def test_ollama_chat_generate_whole_and_streamed():
    client = ollama_client(app_of())
    whole = await client.chat("auto", HELLO)
    assert whole.message.content == "You said: hello" and whole.done_reason == "stop"
    pieces = [piece async for piece in await client.chat("auto", HELLO, stream=True)]
    assert "".join(piece.message.content for piece in pieces) == "You said: hello" and pieces[-1].done
    assert (await client.generate("auto", "hi")).response == "You said: hi"
    assert pieces[-1].total_duration == 750_000_000


async def test_ollama_tools_embeddings_and_models():
    client = ollama_client(app_of([started(), completed(tool_calls=CALLS)]))
    assert (await client.chat("auto", HELLO, tools=[TOOL])).message.tool_calls[0].function.arguments == {"a": 1}
    client = ollama_client(app_of())
    assert (await client.embed("auto", ["a", "bb"])).embeddings == [[1.0, 1.0, 0.5], [2.0, 1.0, 0.5]]
    assert (await client.embeddings("auto", "a")).embedding == [1.0, 1.0, 0.5]
    assert "tinyllama:latest" in [model.model for model in (await client.list()).models]
    assert (await client.ps()).models[0].size_vram == 760 * 2**20
    assert "tools" in (await client.show("sonnet")).capabilities


async def test_ollama_errors_carry_status_and_sentence():
    client = ollama_client(app_of())
    with pytest.raises(ollama.ResponseError, match="not found") as missing:
        await client.chat("zz", HELLO)
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="administrator"):
        await client.pull("tinyllama")
    client = ollama_client(app_of([started(), Delta("a"), GenerationFailed("it broke")]))
    with pytest.raises(ollama.ResponseError, match="it broke"):
        async for _ in await client.chat("auto", HELLO, stream=True):
            pass


async def test_ollamas_key_comes_from_its_environment_variable(monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "bad")
    with pytest.raises(ollama.ResponseError) as refused:
        await ollama_client(app_of()).list()
    assert refused.value.status_code == 401


async def test_both_clients_skip_the_signs_of_life_of_a_waiting_stream():
    script = [Waiting(2, 1.5, "busy"), started(), Delta("Hi"), completed("Hi")]
    app = WireApp(FakeEngine(script), agent_for, "0.1.0", early_headers_s=0.0)
    async with openai_client(app) as client:
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hi"
    pieces = [piece async for piece in await ollama_client(app).chat("auto", HELLO, stream=True)]
    assert "".join(piece.message.content for piece in pieces) == "Hi" and pieces[-1].done
