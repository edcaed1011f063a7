"""The link over a real Redis: streams, cancels, takeovers, losses; each request ends once for its caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from controlplane.link import client as client_module
from controlplane.link import messages
from controlplane.link import server as server_module
from controlplane.link.client import LinkClient
from controlplane.link.connection import end
from controlplane.link.lease import Lease
from controlplane.link.messages import Message
from controlplane.link.server import LinkServer
from optimizer.core.errors import BackendUnavailable, GenerationFailed, InvalidRequest, SystemFull
from optimizer.core.request import Kind, Request
from optimizer.core.request import Message as Turn
from optimizer.ports import Completed, Delta, Started
from tests.controlplane.link.conftest import StubFront
from tests.fake_engine import FakeEngine, Pause, answering, completed, started


def request(text: str = "hello", agent: str = "tester") -> Request:
    return Request("r", agent, Kind.CHAT, (Turn("user", text),))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same rules, ten times as fast."""
    monkeypatch.setattr(client_module, "HERE_EVERY_S", 0.1)
    monkeypatch.setattr(client_module, "SILENT_S", 4.0)
    monkeypatch.setattr(server_module, "WEB_SILENT_S", 2.0)
    monkeypatch.setattr(server_module, "CLAIM_EVERY_S", 0.1)


@asynccontextmanager
async def engine(redis, names, front: StubFront, epoch: int = 1) -> AsyncIterator[LinkServer]:
    """An active engine; leaving it is its sudden end."""
    lease = Lease(redis, names, f"engine:{epoch}")
    lease.epoch, lease._until = epoch, float("inf")
    server = LinkServer(redis, names, front, lease)
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        lease._until = 0.0  # what it had to say is not said any more
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def web(redis, names) -> AsyncIterator[LinkClient]:
    client = LinkClient(redis, names)
    await client.start()
    try:
        await client.first_pong(5)
        yield client
    finally:
        await client.stop()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_request_and_its_answer_cross(redis, names):
    front = StubFront()
    async with engine(redis, names, front), web(redis, names) as client:
        items = [item async for item in client.submit(request())]
        assert items == [started(), Delta("You said: "), Delta("hello"), completed("You said: hello")]
        assert front.engine.requests == [request()]
        assert client.backend_name == "fake" and client.unready() == ""
        assert client.catalogue() == front.engine.catalogue()
        assert list(await client.models()) == list(front.engine.infos)
        await until(lambda: not client._tickets)
        assert await redis.xlen(names.engine) <= 1, "what was taken up is deleted"


async def test_an_error_arrives_with_its_type(redis, names):
    front = StubFront(FakeEngine([InvalidRequest("bad", param="x")]))
    async with engine(redis, names, front), web(redis, names) as client:
        with pytest.raises(InvalidRequest, match="bad"):
            [item async for item in client.submit(request())]


async def test_a_caller_that_leaves_cancels_at_the_engine(redis, names):
    front = StubFront(FakeEngine([started(), Delta("a"), Pause(asyncio.Event())]))
    async with engine(redis, names, front), web(redis, names) as client:
        async with aclosing(client.submit(request())) as replies:
            assert isinstance(await anext(replies), Started)
            await front.engine.until_running(1)
        await until(lambda: front.engine.running == 0)
        assert front.engine.closed_early == 1


async def test_what_a_dead_web_process_had_open_is_cancelled(redis, names):
    front = StubFront(FakeEngine([started(), Pause(asyncio.Event())]))
    async with engine(redis, names, front), web(redis, names) as client:
        replies = client.submit(request())
        await anext(replies)
        await end(client._loops)  # kill -9
        await until(lambda: front.engine.running == 0)
        await replies.aclose()
        client._posts = asyncio.Queue()  # nobody reads it any more; stop() must not wait for it


async def test_a_question_is_answered_and_its_errors_arrive(redis, names):
    front = StubFront()

    async def snapshot():
        return {"at": 1.5}

    async def metrics():
        raise BackendUnavailable("starting")

    front.desk.snapshot, front.desk.metrics = snapshot, metrics
    async with engine(redis, names, front), web(redis, names) as client:
        assert await client.ask("snapshot") == {"at": 1.5}
        with pytest.raises(BackendUnavailable, match="starting"):
            await client.ask("metrics")
        with pytest.raises(messages.EngineFault):
            await client.ask("drop_everything")
        await client.ask("refresh")
        assert front.refreshed == 1


async def _whole(client: LinkClient, text: str = "hello") -> str:
    items = [item async for item in client.submit(request(text))]
    assert isinstance(items[-1], Completed)
    return items[-1].text


async def test_takeover_before_the_first_token_answers_once(redis, names):
    slow, next_one = StubFront(FakeEngine([Pause(asyncio.Event())])), StubFront()
    first = engine(redis, names, slow, 1)
    await first.__aenter__()
    async with web(redis, names) as client:
        answer = asyncio.create_task(_whole(client))
        await slow.engine.until_running(1)
        await first.__aexit__(None, None, None)
        async with engine(redis, names, next_one, 2):
            assert await asyncio.wait_for(answer, 5) == "You said: hello"
        assert len(next_one.engine.requests) == 1


async def test_takeover_after_the_first_token_is_a_clear_error(redis, names):
    slow, next_one = StubFront(FakeEngine([started(), Delta("a"), Pause(asyncio.Event())])), StubFront()
    first = engine(redis, names, slow, 1)
    await first.__aenter__()
    async with web(redis, names) as client:
        replies = client.submit(request())
        assert [await anext(replies), await anext(replies)] == [started(), Delta("a")]
        await first.__aexit__(None, None, None)
        async with engine(redis, names, next_one, 2):
            with pytest.raises(GenerationFailed, match="replaced"):
                await asyncio.wait_for(anext(replies), 5)
        assert not next_one.engine.requests


async def test_what_a_dead_engine_had_read_is_taken_up_by_the_next(redis, names):
    await redis.xgroup_create(names.engine, server_module.CONSUMERS, id="0", mkstream=True)
    front = StubFront()
    client = LinkClient(redis, names)
    await client.start()
    client._facts = messages.Facts("fake", False, "", front.engine.catalogue())
    answer = asyncio.create_task(_whole(client))
    while not await redis.xreadgroup(server_module.CONSUMERS, "0", {names.engine: ">"}, count=100, block=100):
        pass  # `here` or the request, by an engine that dies before it takes it up
    async with engine(redis, names, front, 2):
        assert await asyncio.wait_for(answer, 5) == "You said: hello"
        assert len(front.engine.requests) == 1
        await client.stop()


async def test_a_request_that_comes_twice_is_answered_once(redis, names):
    front = StubFront()
    async with engine(redis, names, front), web(redis, names) as client:
        await _whole(client)
        ticket = f"{client.name}-{client._count}"
        for _ in range(2):
            copy = Message("submit", ticket, client.name, body=messages.written(request()))
            await redis.xadd(names.engine, copy.fields())
        await _whole(client, "again")  # behind the copies
        assert [r.messages[0].content for r in front.engine.requests] == ["hello", "again"]


async def test_late_words_of_an_older_engine_are_ignored(redis, names):
    front = StubFront(FakeEngine([started(), Pause(gate := asyncio.Event()), Delta("b"), completed("b")]))
    async with engine(redis, names, front, 7), web(redis, names) as client:
        replies = client.submit(request())
        assert await anext(replies) == started()
        [ticket] = client._tickets
        late = Message("delta", ticket, client.name, 6, 2, messages.written(Delta("from the past")))
        await redis.xadd(names.web(client.name), late.fields())
        gate.set()
        assert [item async for item in replies] == [Delta("b"), completed("b")]


async def test_a_lost_part_of_an_answer_is_an_error_and_a_second_copy_is_nothing(redis, names):
    front = StubFront(FakeEngine([started(), Delta("a"), Pause(asyncio.Event())]))
    async with engine(redis, names, front), web(redis, names) as client:
        replies = client.submit(request())
        assert [await anext(replies), await anext(replies)] == [started(), Delta("a")]
        [ticket] = client._tickets
        for number in (2, 4):
            item = Message("delta", ticket, client.name, 1, number, messages.written(Delta("x")))
            await redis.xadd(names.web(client.name), item.fields())
        with pytest.raises(GenerationFailed, match="lost"):
            await anext(replies)
        await until(lambda: front.engine.running == 0)


async def test_a_redis_that_has_forgotten_everything_is_got_over(redis, names):
    gate = asyncio.Event()
    front = StubFront(FakeEngine(lambda r: answering("a") if gate.is_set() else [started(), Pause(gate), Delta("b")]))
    async with engine(redis, names, front), web(redis, names) as client:
        replies = client.submit(request())
        assert await anext(replies) == started()
        await redis.flushall()
        gate.set()
        await asyncio.gather(anext(replies), return_exceptions=True)  # it goes on, or says what was lost
        await replies.aclose()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await _whole(client) == "a"
                    break
                except (BackendUnavailable, GenerationFailed):
                    await asyncio.sleep(0.05)


async def test_without_an_engine_nobody_waits_for_ever(redis, names):
    front = StubFront(FakeEngine([started(), Pause(asyncio.Event())]))
    first = engine(redis, names, front, 1)
    await first.__aenter__()
    async with web(redis, names) as client:
        replies = client.submit(request())
        await anext(replies)
        await first.__aexit__(None, None, None)
        with pytest.raises(BackendUnavailable, match="no engine has answered"):
            await asyncio.wait_for(anext(replies), 5)
        assert "no engine has answered" in client.unready()
        with pytest.raises(BackendUnavailable):
            await asyncio.wait_for(_whole(client), 1)


async def test_too_much_before_the_engine_is_refused_with_a_time(redis, names, monkeypatch):
    monkeypatch.setattr(client_module, "BACKLOG", 3)
    first = engine(redis, names, StubFront(), 1)
    await first.__aenter__()
    async with web(redis, names) as client:
        await first.__aexit__(None, None, None)
        for _ in range(4):
            await redis.xadd(names.engine, {"x": "y"})
        with pytest.raises(SystemFull) as refused:
            await _whole(client)
        assert refused.value.retry_after_s == client_module.FULL_RETRY_S


async def test_two_releases_refuse_each_other_clearly(redis, names, monkeypatch):
    async with engine(redis, names, StubFront()):
        monkeypatch.setattr(client_module, "VERSION", 2)
        monkeypatch.setattr(messages.Message, "fields", _as_version_2(messages.Message.fields))
        client = LinkClient(redis, names)
        await client.start()
        await until(lambda: client._foreign)
        with pytest.raises(BackendUnavailable, match="different releases"):
            await _whole(client)
        await client.stop()


def _as_version_2(fields):
    def patched(message):
        written = fields(message)
        return {**written, "v": 2} if message.kind in ("here", "submit", "cancel") else written

    return patched


async def test_an_agent_that_only_the_web_knows_yet_is_looked_up(redis, names):
    front = StubFront()
    async with engine(redis, names, front), web(redis, names) as client:
        with pytest.raises(InvalidRequest, match="no agent"):
            [item async for item in client.submit(request(agent="newcomer"))]
        assert front.refreshed == 1
