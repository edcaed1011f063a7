"""The Ollama backend: the contract against Ollama's rules (and a real one at OLLAMA_URL), ownership, errors."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from optimizer.backends.ollama import OllamaBackend
from optimizer.core.errors import (
    BackendUnavailable,
    ConfigurationError,
    GenerationFailed,
    LoadFailed,
    ModelFileMissing,
    UnsupportedFeature,
)
from optimizer.core.request import Message
from optimizer.core.tiers import STRATEGY_CATALOGUE, ModelSpec, Residency
from optimizer.ports import Backend, Call, Delta, Finished
from tests.backends.contract import LONG, BackendContract, WedgeContract, call, finish, running
from tests.ollama_server import OllamaServer
from tests.ollama_server.wire import prompt_mark

TINY, QWEN, DEEP = (STRATEGY_CATALOGUE.models[name] for name in ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"))
SPEED = 100.0
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"anyOf": [{"type": "string"}]}}},
    },
}


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer(speed=SPEED) as server:
        yield server


@pytest.fixture
async def backend(server: OllamaServer) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(server.url, probe_timeout_s=0.3, evict_timeout_s=2.0)
    await backend.start()
    yield backend
    await backend.close()


async def settled(server: OllamaServer, inside: int) -> None:
    """Until so many requests are in the server."""
    async with asyncio.timeout(5):
        while server.stats.inside != inside:
            await asyncio.sleep(0)


class TestOllamaContract(WedgeContract):
    @pytest.fixture
    def spec(self) -> ModelSpec:
        return TINY

    @pytest.fixture
    async def backend(self, server: OllamaServer) -> AsyncIterator[OllamaBackend]:
        self.server = server
        backend = OllamaBackend(server.url, probe_timeout_s=0.3)
        await backend.start()
        yield backend
        await backend.close()

    async def wedge(self, backend: Backend) -> None:
        self.server.fault(wedge=True)


if "OLLAMA_URL" in os.environ:

    @pytest.mark.slow
    class TestRealOllamaContract(BackendContract):
        """The same against a real Ollama; OLLAMA_MODEL names a model it has (default tinyllama)."""

        patience_s = 300.0

        @pytest.fixture
        def spec(self) -> ModelSpec:
            name = os.environ.get("OLLAMA_MODEL", "tinyllama")
            return ModelSpec(name, "default", 800, 2048, Residency.ON_DEMAND, 5.0, 100.0, 10.0, 512)

        @pytest.fixture
        async def backend(self) -> AsyncIterator[OllamaBackend]:
            backend = OllamaBackend(os.environ["OLLAMA_URL"], probe_timeout_s=30.0)
            await backend.start()
            yield backend
            await backend.close()


# --- owning it ------------------------------------------------------------------------------------


async def test_every_call_carries_the_pinned_profile_and_keep_alive(
    server: OllamaServer, backend: OllamaBackend
) -> None:
    await backend.load(TINY)
    wishes = {"num_ctx": 99, "num_gpu": 3, "num_thread": 7, "temperature": 0.5, "num_predict": 3}
    await finish(backend.generate(Call("tinyllama", (Message("user", "hello"),), wishes)))
    await finish(backend.generate(Call("tinyllama", (Message("user", "def f("),), wishes, raw=True)))
    await backend.embed("tinyllama", ["hello"], wishes)
    await backend.probe("tinyllama")
    assert [route for route, _ in server.bodies] == [
        "/api/generate",
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/generate",
    ]
    for _, body in server.bodies:
        assert body["keep_alive"] == -1
        assert {"num_ctx": 2048, "num_batch": 512}.items() <= body["options"].items()
        assert not {"num_gpu", "num_thread"} & set(body["options"])
    assert server.bodies[1][1]["options"]["temperature"] == 0.5
    assert (server.stats.loads.total(), server.stats.reloads) == (1, 0)


async def test_a_model_loaded_by_someone_else_is_used_as_it_is(server: OllamaServer, backend: OllamaBackend) -> None:
    async with aiohttp.ClientSession() as session:
        body = {"model": "tinyllama", "options": {"num_ctx": 1024}, "keep_alive": "10m"}
        await (await session.post(f"{server.url}/api/generate", json=body)).read()
    assert [r.model for r in await backend.residents()] == ["tinyllama"]
    await finish(backend.generate(call(TINY, "hello", 3)))
    assert server.stats.loads.total() == 1
    await backend.load(TINY)  # now it is told which profile it shall have
    assert (server.stats.loads.total(), server.stats.reloads) == (2, 1)


async def test_names_are_the_catalogues(backend: OllamaBackend) -> None:
    names = [info.name for info in await backend.models()]
    assert names == ["tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"]
    await backend.load(replace(TINY, name="tinyllama:latest"))
    assert [r.model for r in await backend.residents()] == ["tinyllama:latest"]
    await backend.evict("tinyllama")
    assert await backend.residents() == []


async def test_models_say_what_they_can(backend: OllamaBackend) -> None:
    infos = {info.name: info for info in await backend.models()}
    assert infos["deepseek-r1:8b"].capabilities == ("completion", "tools", "thinking", "embedding")
    assert infos["tinyllama"].context_length == 8192
    assert infos["tinyllama"].quantization == "Q4_0"


async def test_memory_is_measured(backend: OllamaBackend) -> None:
    report = await backend.load(QWEN)
    assert (report.footprint_mb, report.vram_mb) == (2500, 2500)
    assert report.load_s >= 4.0 / SPEED


async def test_a_partial_offload_is_seen() -> None:
    async with OllamaServer(speed=SPEED, vram_mb=2000) as server:
        backend = OllamaBackend(server.url)
        await backend.start()
        report = await backend.load(DEEP)
        assert (report.footprint_mb, report.vram_mb) == (3200, 2000)
        await backend.close()


async def test_a_load_that_spilled_because_the_driver_lags_is_tried_again(
    server: OllamaServer, backend: OllamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.backends.ollama._DRIVER_LAG_S", 1.1)
    server.fault(memory_lag_s=1.0)
    await backend.load(QWEN)
    await backend.evict(QWEN.name)
    assert (await backend.load(DEEP)).vram_mb == 3200
    assert server.stats.loads == {QWEN.name: 1, DEEP.name: 2}
    await backend.evict(DEEP.name)
    assert (await backend.load(QWEN)).vram_mb == 2500  # it has learned to wait
    assert server.stats.loads == {QWEN.name: 2, DEEP.name: 2}


async def test_a_load_that_pushed_another_out_because_the_driver_lags_happens_once(
    server: OllamaServer, backend: OllamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.backends.ollama._DRIVER_LAG_S", 1.1)
    server.fault(memory_lag_s=1.0)
    for _ in range(2):
        await backend.load(TINY)
        await backend.load(QWEN)
        await backend.evict(QWEN.name)
        await backend.load(QWEN)
    assert server.stats.evictions == {QWEN.name: 2, "tinyllama:latest": 1}


async def test_a_model_that_never_fits_whole_is_tried_again_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.backends.ollama._DRIVER_LAG_S", 0.1)
    async with OllamaServer(speed=SPEED, vram_mb=2000) as server:
        backend = OllamaBackend(server.url)
        await backend.start()
        for _ in range(3):
            assert (await backend.load(DEEP)).vram_mb == 2000
            await backend.evict(DEEP.name)
        assert server.stats.loads.total() == 4
        await backend.close()


async def test_an_eviction_returns_when_the_memory_is_free(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(TINY)
    await backend.evict("tinyllama")
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/api/ps") as answer:
        assert await answer.json() == {"models": []}
    await backend.load(DEEP)
    assert server.stats.evictions == {"tinyllama:latest": 1}


async def test_two_streams_really_run_at_once_and_leave_nothing_behind(
    server: OllamaServer, backend: OllamaBackend
) -> None:
    await backend.load(TINY)
    async with running(backend, TINY, 5.0), running(backend, TINY, 5.0):
        pass
    assert server.stats.max_running == {"tinyllama:latest": 2}
    await finish(backend.generate(call(TINY, "hello", 3)))
    await settled(server, 0)
    assert server.stats.abandoned == 2


async def test_a_call_cancelled_before_its_first_token_leaves_nothing_behind(
    server: OllamaServer, backend: OllamaBackend
) -> None:
    await backend.load(TINY)
    server.fault(wedge=True)
    silent = asyncio.create_task(finish(backend.generate(call(TINY, "hello", 3))))
    await settled(server, 1)
    silent.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await silent
    await settled(server, 0)


# --- what goes through ----------------------------------------------------------------------------


async def test_the_answer_is_the_models_own(backend: OllamaBackend) -> None:
    await backend.load(TINY)
    items = [item async for item in backend.generate(call(TINY, LONG, 50))]
    text = "".join(item.text for item in items if isinstance(item, Delta))
    assert text.startswith(f"[stub answer from tinyllama to {prompt_mark(LONG)}]")
    finished = items[-1]
    assert isinstance(finished, Finished)
    assert (finished.output_tokens, finished.done_reason) == (50, "length")
    assert finished.decode_s == pytest.approx(50 / 120 / SPEED)


async def test_tools_go_through_and_calls_come_back(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(QWEN)
    one = Call(QWEN.name, (Message("user", "weather?"),), tools=(TOOL,))
    deltas = [item async for item in backend.generate(one) if isinstance(item, Delta)]
    calls = [c for delta in deltas for c in delta.tool_calls]
    assert calls == [{"id": "call_stub", "name": "look_up", "arguments": {"city": "simulated"}}]
    assert server.bodies[-1][1]["tools"] == [TOOL]

    history = (
        *one.messages,
        Message("assistant", "", tool_calls=tuple(calls)),
        Message("tool", "9 degrees", (), "call_stub"),
    )
    await finish(backend.generate(replace(one, messages=history)))
    assert server.bodies[-1][1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_stub", "function": {"name": "look_up", "arguments": {"city": "simulated"}}}],
        },
        {"role": "tool", "content": "9 degrees", "tool_name": "look_up", "tool_call_id": "call_stub"},
    ]


async def test_think_and_format_are_top_level(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(DEEP)
    one = replace(call(DEEP, "why?", 40), think=True)
    deltas = [item async for item in backend.generate(one) if isinstance(item, Delta)]
    assert any(delta.thinking for delta in deltas)
    assert "".join(delta.text for delta in deltas).startswith("[stub answer from deepseek-r1:8b to ")
    await finish(backend.generate(replace(one, think=False, format="json")))
    body = server.bodies[-1][1]
    assert (body["think"], body["format"]) == (False, "json")


async def test_images_and_suffix_go_through(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(TINY)
    picture = Message("user", "what is it?", images=("aGVsbG8=",))
    await finish(backend.generate(Call("tinyllama", (picture,), {"num_predict": 2})))
    assert server.bodies[-1][1]["messages"][0]["images"] == ["aGVsbG8="]
    await finish(
        backend.generate(Call("tinyllama", (Message("user", "def f("),), {"num_predict": 2}, suffix="return 1"))
    )
    route, body = server.bodies[-1]
    assert (route, body["prompt"], body["suffix"]) == ("/api/generate", "def f(", "return 1")


# --- what goes wrong ------------------------------------------------------------------------------


async def test_nobody_there_is_unavailable_and_says_what_to_do() -> None:
    backend = OllamaBackend("http://127.0.0.1:9", connect_timeout_s=1.0)
    with pytest.raises(BackendUnavailable, match="ollama serve"):
        await backend.start()
    for attempt in (backend.models(), backend.load(TINY), backend.probe(None), backend.evict("tinyllama")):
        with pytest.raises(BackendUnavailable):
            await attempt
    with pytest.raises(BackendUnavailable):
        await finish(backend.generate(call(TINY, "hello", 3)))
    await backend.close()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://[::1"])
def test_an_impossible_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="address of an Ollama"):
        OllamaBackend(url)


def test_an_address_needs_no_scheme() -> None:
    assert OllamaBackend("127.0.0.1:11434").url == "http://127.0.0.1:11434"


async def test_a_missing_model_says_how_to_get_it(backend: OllamaBackend) -> None:
    with pytest.raises(ModelFileMissing, match="ollama pull no-such"):
        await backend.load(replace(TINY, name="no-such"))
    with pytest.raises(ModelFileMissing, match="ollama pull no-such"):
        await backend.embed("no-such", ["x"], {})


async def test_an_error_line_in_the_stream_fails_the_generation(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(TINY)
    for fault in ("die_mid_stream", "cut_mid_stream"):
        server.fault(**{fault: 1})
        with pytest.raises(GenerationFailed):
            await finish(backend.generate(call(TINY, LONG, 500)))
    await finish(backend.generate(call(TINY, LONG, 3)))


async def test_a_busy_ollama_is_unavailable(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(TINY)
    server.fault(busy=1)
    with pytest.raises(BackendUnavailable, match="busy"):
        await finish(backend.generate(call(TINY, "hello", 3)))


async def test_a_failed_load_is_told_and_the_next_one_works(server: OllamaServer, backend: OllamaBackend) -> None:
    server.fault(fail_load=1)
    with pytest.raises(LoadFailed, match="terminated"):
        await backend.load(TINY)
    await backend.load(TINY)


async def test_a_load_has_a_time_limit(server: OllamaServer) -> None:
    backend = OllamaBackend(server.url, load_timeout_s=0.05)
    await backend.start()
    server.fault(slow_load=100.0)
    with pytest.raises(LoadFailed, match="did not load"):
        await backend.load(TINY)
    await backend.close()


async def test_silence_in_a_stream_has_a_limit(server: OllamaServer) -> None:
    backend = OllamaBackend(server.url, stall_timeout_s=0.1)
    await backend.start()
    await backend.load(TINY)
    server.fault(wedge=True)
    with pytest.raises(GenerationFailed, match="silent"):
        await finish(backend.generate(call(TINY, "hello", 3)))
    await backend.close()


async def test_a_model_that_cannot_says_so(server: OllamaServer, backend: OllamaBackend) -> None:
    await backend.load(TINY)
    with pytest.raises(UnsupportedFeature, match="tools"):
        await finish(backend.generate(Call("tinyllama", (Message("user", "x"),), tools=(TOOL,))))
    with pytest.raises(UnsupportedFeature, match="thinking"):
        await finish(backend.generate(Call("tinyllama", (Message("user", "x"),), think=True)))


async def test_a_model_without_embeddings_says_so() -> None:
    async with OllamaServer(speed=SPEED, specs={"tinyllama": replace(TINY, embeds=False)}) as server:
        backend = OllamaBackend(server.url)
        await backend.start()
        await backend.load(TINY)
        with pytest.raises(UnsupportedFeature, match="embeddings"):
            await backend.embed("tinyllama", ["x"], {})
        await backend.close()


async def test_a_server_wedged_for_good_is_unavailable_after_recover_too(server: OllamaServer) -> None:
    backend = OllamaBackend(server.url, probe_timeout_s=0.1, evict_timeout_s=0.2)
    await backend.start()
    await backend.load(TINY)
    server.fault(wedge="server")
    stuck = asyncio.create_task(finish(backend.generate(call(TINY, "hello", 3))))
    assert len(await backend.models()) == 3  # it still answers
    with pytest.raises(BackendUnavailable):
        await backend.probe("tinyllama")
    server.fault(wedge=False)
    await stuck
    await backend.probe("tinyllama")
    await backend.close()


async def test_what_is_not_ollama_is_found_out() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as other:
        backend = OllamaBackend(f"127.0.0.1:{other.sockets[0].getsockname()[1]}")
        with pytest.raises(BackendUnavailable, match="is not Ollama"):
            await backend.start()
        await backend.close()
