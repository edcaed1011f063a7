"""The test server keeps Ollama's scheduling rules and wordings: what it is compared with must be real."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.ollama_server import OllamaServer
from tests.ollama_server import load as load_test

TINY, QWEN, DEEP = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
SPEED = 200.0


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer(speed=SPEED) as server:
        yield server


@pytest.fixture
async def session(server: OllamaServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def ask(session: aiohttp.ClientSession, model: str, tokens: int = 3, **more: Any) -> list[dict[str, Any]]:
    """The lines of one chat answer."""
    options = {"num_predict": tokens, **more.pop("options", {})}
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "options": options, **more}
    async with session.post("/api/chat", json=body) as response:
        return [json.loads(line) async for line in response.content]


async def resident(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/api/ps") as response:
        return [row["name"] for row in (await response.json())["models"]]


async def inside(server: OllamaServer, requests: int) -> None:
    """Until so many requests have arrived."""
    async with asyncio.timeout(5):
        while server.stats.inside != requests:
            await asyncio.sleep(0)


async def started(session: aiohttp.ClientSession, model: str) -> aiohttp.ClientResponse:
    """A long answer that has begun."""
    body = {"model": model, "messages": [{"role": "user", "content": "write 30000 words"}]}
    response = await session.post("/api/chat", json=body)
    await response.content.readline()
    return response


async def test_a_stream_ends_with_counts_and_nanoseconds(session: aiohttp.ClientSession) -> None:
    *lines, last = await ask(session, TINY, 40)
    assert all(line["done"] is False for line in lines)
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 40)
    assert last["eval_duration"] == pytest.approx(40 / 120 / SPEED * 1e9)
    assert last["load_duration"] >= 1.2 / SPEED * 1e9
    assert last["total_duration"] >= last["load_duration"] + last["eval_duration"]


async def test_without_a_stream_the_answer_is_one_object(session: aiohttp.ClientSession) -> None:
    (line,) = await ask(session, TINY, 12, stream=False)
    assert line["done"] and line["message"]["content"].startswith("[stub answer from tinyllama to ")


async def test_models_that_fit_stay_together_and_others_push_out(
    server: OllamaServer, session: aiohttp.ClientSession
) -> None:
    await ask(session, TINY)
    await ask(session, QWEN)
    assert await resident(session) == ["tinyllama:latest", QWEN]
    await ask(session, DEEP)
    assert await resident(session) == [DEEP]
    assert server.stats.evictions == {"tinyllama:latest": 1, QWEN: 1}


async def test_the_shortest_keep_alive_is_pushed_out_first() -> None:
    async with OllamaServer(speed=SPEED, vram_mb=4000) as server, aiohttp.ClientSession(server.url) as session:
        await ask(session, TINY, keep_alive=-1)
        await ask(session, QWEN, keep_alive="10m")
        await ask(session, DEEP)
        assert await resident(session) == ["tinyllama:latest", DEEP]


async def test_an_idle_model_is_pushed_out_before_a_busy_one() -> None:
    async with OllamaServer(speed=SPEED, vram_mb=4000) as server, aiohttp.ClientSession(server.url) as session:
        await ask(session, QWEN, keep_alive=-1)
        busy = await started(session, TINY)
        await ask(session, DEEP)
        assert await resident(session) == ["tinyllama:latest", DEEP]
        busy.close()


async def test_a_loaded_model_is_served_past_the_queue(server: OllamaServer, session: aiohttp.ClientSession) -> None:
    busy = await started(session, QWEN)
    blocked = asyncio.create_task(ask(session, DEEP))
    await inside(server, 2)
    behind = asyncio.create_task(ask(session, TINY))  # would fit, and stands behind the head of the queue
    await inside(server, 3)
    await ask(session, QWEN)
    assert not blocked.done() and not behind.done()
    assert server.stats.loads.total() == 1
    busy.close()
    assert (await blocked)[-1]["done"] and (await behind)[-1]["done"]


async def test_keep_alive_on_a_late_request_keeps_a_model_that_was_to_go(
    server: OllamaServer, session: aiohttp.ClientSession
) -> None:
    """The stall of ollama #17408: who sends keep_alive must not queue behind another model."""
    busy = await started(session, QWEN)
    blocked = asyncio.create_task(ask(session, DEEP))
    await inside(server, 2)
    await ask(session, QWEN, keep_alive="1h")
    busy.close()
    await ask(session, QWEN)
    assert not blocked.done() and await resident(session) == [QWEN]
    async with session.post("/api/generate", json={"model": QWEN, "keep_alive": 0}) as response:
        assert (await response.json())["done_reason"] == "unload"
    assert (await blocked)[-1]["done"]


async def test_other_runner_options_reload_the_model(server: OllamaServer, session: aiohttp.ClientSession) -> None:
    await ask(session, TINY, options={"num_ctx": 1024})
    await ask(session, TINY, options={"num_ctx": 1024, "temperature": 0})
    assert server.stats.loads.total() == 1
    await ask(session, TINY)
    assert (server.stats.loads.total(), server.stats.reloads) == (2, 1)


async def test_one_model_runs_as_many_as_it_has_slots(server: OllamaServer, session: aiohttp.ClientSession) -> None:
    await asyncio.gather(*(ask(session, TINY, 20) for _ in range(6)))
    assert server.stats.max_running == {"tinyllama:latest": 2}


async def test_a_client_that_leaves_frees_its_place(server: OllamaServer, session: aiohttp.ClientSession) -> None:
    streams = [await started(session, TINY) for _ in range(2)]
    waiting = asyncio.create_task(ask(session, TINY))
    for stream in streams:
        stream.close()
    await inside(server, 0)
    assert (await waiting)[-1]["done"]
    assert server.stats.abandoned == 2


async def test_a_full_queue_is_busy() -> None:
    async with OllamaServer(speed=SPEED, max_queue=1) as server, aiohttp.ClientSession(server.url) as session:
        busy = await started(session, QWEN)
        waiting = [asyncio.create_task(ask(session, DEEP))]
        await inside(server, 2)
        waiting.append(asyncio.create_task(ask(session, DEEP)))  # the loop holds one, one more may queue
        await inside(server, 3)
        body = {"model": DEEP, "prompt": "x"}
        async with session.post("/api/generate", json=body) as response:
            error = "server busy, please try again.  maximum pending requests exceeded"
            assert (response.status, await response.json()) == (503, {"error": error})
        busy.close()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("route", "body", "status", "error"),
    [
        ("/api/chat", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/generate", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/show", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/embed", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/chat", {}, 400, "model is required"),
    ],
)
async def test_errors_have_ollamas_words(
    session: aiohttp.ClientSession, route: str, body: dict[str, Any], status: int, error: str
) -> None:
    async with session.post(route, json=body) as response:
        assert (response.status, await response.json()) == (status, {"error": error})


async def test_empty_messages_load_and_keep_alive_0_unloads(session: aiohttp.ClientSession) -> None:
    for body, reason in (({"model": TINY, "messages": []}, "load"), ({"model": TINY, "keep_alive": 0}, "unload")):
        async with session.post("/api/chat", json=body) as response:
            assert (await response.json())["done_reason"] == reason


@pytest.mark.parametrize("route", ["/", "/api/version", "/api/tags"])
async def test_head_is_answered(session: aiohttp.ClientSession, route: str) -> None:
    async with session.head(route) as response:
        assert response.status == 200


async def test_embeddings_in_both_shapes(session: aiohttp.ClientSession) -> None:
    async with session.post("/api/embed", json={"model": TINY, "input": ["a", "b"]}) as response:
        assert [len(vector) for vector in (await response.json())["embeddings"]] == [64, 64]
    async with session.post("/api/embeddings", json={"model": TINY, "prompt": "a"}) as response:
        assert len((await response.json())["embedding"]) == 64


async def test_faults_and_counters_go_over_http(session: aiohttp.ClientSession) -> None:
    async with session.post("/fault", json={"die_mid_stream": 1}) as response:
        assert response.status == 200
    assert "error" in (await ask(session, TINY, 500))[-1]
    async with session.post("/fault", json={"no_such": 1}) as response:
        assert response.status == 400
    async with session.get("/stats") as response:
        assert (await response.json())["total_loads"] == 1


async def test_many_agents_are_answered_once_each_by_their_own_model() -> None:
    async with OllamaServer(speed=2000) as server:
        makespan_s, outcomes = await load_test.run(server.url, load_test.plan(agents=40, each=2))
        assert len(outcomes) == 80 and not [outcome.problem for outcome in outcomes if outcome.problem]
        assert makespan_s > 0
        assert server.stats.requests == server.stats.answered
        assert server.stats.inside == 0
