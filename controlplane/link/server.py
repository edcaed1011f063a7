"""The engine's end of the link: takes requests and questions from the stream, sends back what comes of them.

Rule: a message is acknowledged once it is taken up; what a dead engine had not taken up is claimed by the next one, and
a request that is known is not taken up twice. Nothing is read while the lease is not held. A web process that has not
been heard of for `WEB_SILENT_S` is dead: its requests are cancelled.
Must not know: HTTP, or how the engine works.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from controlplane.control import NotHere
from controlplane.front import Front
from controlplane.link.connection import AGAIN_S, AWAY, BLOCK_MS, Names, end
from controlplane.link.lease import Lease
from controlplane.link.messages import (
    ANSWERS,
    KIND_OF,
    VERSION,
    Facts,
    Message,
    Question,
    open_requests,
    problem_of,
    read,
    written,
)
from optimizer.core.errors import InvalidRequest, NarrowgaugeError
from optimizer.core.request import Request
from optimizer.ports import Completed, Started, Waiting

log = logging.getLogger("narrowgauge.link")

CONSUMERS = "engine"  # the consumer group; each epoch is a consumer of it
AT_ONCE = 200  # messages read or written at once
WEB_SILENT_S = 5.0
CLAIM_EVERY_S = 1.0  # how often it is looked for messages that a stale engine has read and left
REPLIES_KEPT = 20_000  # most replies that wait in Redis for one web process; the oldest go first, and are missed
ENDED_KEPT = 20_000  # ids of ended requests that are remembered, so that a late copy is not answered again


@dataclass(slots=True)
class _Web:
    """One web process, as it was last heard of."""

    heard: float
    open: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class LinkServer:
    """`await run()` while the lease is held; cancel it, once, to stop. Requests that are open then are cancelled."""

    def __init__(self, redis: Redis, names: Names, front: Front, lease: Lease) -> None:
        self._redis = redis
        self._names = names
        self._front = front
        self._lease = lease
        self._epoch = lease.epoch  # the one it serves: when its lease is another, its time is over
        self._webs: dict[str, _Web] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._out: deque[Message] = deque()
        self._has_out = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loops = [asyncio.create_task(loop()) for loop in (self._read, self._claim, self._write, self._bury)]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_EXCEPTION)
            for loop in done:
                loop.result()  # none ends by itself: a bug, and loud
        finally:
            await end(loops)
            tasks = [*self._errands, *(task for web in self._webs.values() for task in web.open.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._active():  # a stop in good order: what was said is delivered
                with suppress(*AWAY):
                    await self._write_batch()

    def _active(self) -> bool:
        return self._lease.held and self._lease.epoch == self._epoch

    # in ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                found = await self._redis.xreadgroup(
                    CONSUMERS, str(self._epoch), {self._names.engine: ">"}, count=AT_ONCE, block=BLOCK_MS
                )
            except ResponseError:  # no such stream or group: a new Redis, or one that has lost it
                await self._make_group()
            except AWAY:
                await asyncio.sleep(AGAIN_S)
            else:
                for _, entries in found or ():
                    await self._take_up(entries)

    async def _claim(self) -> None:
        """What an engine before us (or a stale one beside us) has read and not taken up."""
        while True:
            try:
                _, entries, *_ = await self._redis.xautoclaim(
                    self._names.engine, CONSUMERS, str(self._epoch), min_idle_time=int(CLAIM_EVERY_S * 1000)
                )
                await self._take_up(entries)
            except ResponseError:
                await self._make_group()
            except AWAY:
                pass
            await asyncio.sleep(CLAIM_EVERY_S)

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._names.engine, CONSUMERS, id="0", mkstream=True)
        except AWAY:  # made already: the claiming and the reading loop both look after it
            await asyncio.sleep(AGAIN_S)

    async def _take_up(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        if not entries or not self._active():
            return  # not ours any more: left for the engine that holds the lease
        for _, fields in entries:
            try:
                self._handle(Message.of(fields))
            except (KeyError, ValueError, ValidationError) as error:
                log.error("a message that cannot be read: %s", error)
        numbers = [number for number, _ in entries]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xack(self._names.engine, CONSUMERS, *numbers)
                pipe.xdel(self._names.engine, *numbers)
                await pipe.execute()
        except AWAY:
            pass  # they come again, and are known

    def _handle(self, message: Message) -> None:
        if message.version != VERSION:
            self._say(message.web, Message("version", message.id))
            return
        match message.kind:
            case "submit":
                self._submit(message)
            case "cancel":
                task = self._web(message.web).open.get(message.id)
                if task is not None:
                    task.cancel()
            case "ask":
                if message.id not in self._ended:
                    self._remember(message.id)
                    self._errand(self._answer(message))
            case "here":
                self._here(message)
            case other:
                raise ValueError(f"no message is called {other[:40]!r}")

    def _web(self, name: str) -> _Web:
        return self._webs.setdefault(name, _Web(time.monotonic()))

    def _here(self, message: Message) -> None:
        """A web process lives. What it has open and we do not know is lost; what we run and it has not is cancelled."""
        web = self._web(message.web)
        web.heard = time.monotonic()
        listed = open_requests(message.body)
        for request_id in listed:
            if request_id not in web.open:
                # `number` says whether it was answered already: then it must not be asked again.
                self._say(message.web, Message("lost", request_id, number=int(request_id in self._ended)))
        for request_id in web.open.keys() - set(listed):
            web.open[request_id].cancel()
        self._say(message.web, Message("pong", body=written(self._facts())))

    def _facts(self) -> Facts:
        engine = self._front.engine
        return Facts(engine.backend_name, engine.simulated, engine.unready(), engine.catalogue())

    async def _bury(self) -> None:
        """Cancel what dead web processes have left, and delete their streams."""
        while True:
            await asyncio.sleep(WEB_SILENT_S / 5)
            limit = time.monotonic() - WEB_SILENT_S
            for name, web in [(name, web) for name, web in self._webs.items() if web.heard < limit]:
                if web.open:
                    log.warning("web process %s is silent: %d requests cancelled", name, len(web.open))
                for task in web.open.values():
                    task.cancel()
                del self._webs[name]
                with suppress(*AWAY):  # then it runs out by itself
                    await self._redis.delete(self._names.web(name))

    # requests and questions ----------------------------------------------------------------------------

    def _submit(self, message: Message) -> None:
        web = self._web(message.web)
        if message.id in web.open or message.id in self._ended:
            return  # a second copy
        request: Request = read(message.body, Request)
        task = asyncio.get_running_loop().create_task(self._serve(message, request))
        web.open[message.id] = task
        task.add_done_callback(lambda task: self._end(web, message.id, task))

    def _end(self, web: _Web, request_id: str, task: asyncio.Task[None]) -> None:
        web.open.pop(request_id, None)
        if not task.cancelled():
            self._remember(request_id)

    def _remember(self, request_id: str) -> None:
        self._ended[request_id] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    async def _serve(self, message: Message, request: Request) -> None:
        """Pump one request's replies out, numbered from its start on."""
        number, last = 0, None
        try:
            await self._know(request.agent)
            async with aclosing(self._front.engine.submit(request)) as replies:
                async for item in replies:
                    if isinstance(item, Completed):
                        last = item  # said when the iterator has ended: the record is made then
                        continue
                    shown = not isinstance(item, Waiting)
                    number += shown
                    self._item(message, number if shown else 0, item)
            if last is not None:
                self._item(message, number + 1, last)
        except Exception as error:
            self._fail(message, error)

    async def _know(self, agent: str) -> None:
        """A web process may have read of a new agent a moment before us."""
        if agent not in self._front.tables.agents:
            await self._front.refresh()
        if agent not in self._front.tables.agents:
            raise InvalidRequest(f"there is no agent '{agent[:60]}' any more")

    async def _answer(self, message: Message) -> None:
        try:
            question: Question = read(message.body, Question)
            if question.name not in ANSWERS:
                raise ValueError(f"no question is called {question.name[:40]!r}")
            result = await self._ask(question)
            self._say(message.web, Message("answer", message.id, body=written(result, ANSWERS[question.name])))
        except Exception as error:
            self._fail(message, error)

    async def _ask(self, question: Question) -> Any:
        match question.name:
            case "models" | "residents":
                return tuple(await getattr(self._front.engine, question.name)())
            case "refresh":
                await self._front.refresh()
                return self._facts()
            case "flush":
                return await self._front.flush()
            case name:
                return await getattr(self._front.desk, name)(*question.arguments)

    def _fail(self, message: Message, error: Exception) -> None:
        if not isinstance(error, NarrowgaugeError | NotHere):
            log.error("%s %s broke", message.kind, message.id, exc_info=error)
        self._say(message.web, Message("failed", message.id, body=written(problem_of(error))))

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # out -----------------------------------------------------------------------------------------------

    def _item(self, message: Message, number: int, item: Waiting | Started | Completed | Any) -> None:
        self._say(message.web, Message(KIND_OF[type(item)], message.id, number=number, body=written(item)))

    def _say(self, web: str, message: Message) -> None:
        self._out.append(Message(message.kind, message.id, web, self._epoch, message.number, message.body))
        self._has_out.set()

    async def _write(self) -> None:
        while True:
            await self._has_out.wait()
            try:
                await self._write_batch()
            except AWAY:
                await asyncio.sleep(AGAIN_S)  # and again: what arrives twice is counted once

    async def _write_batch(self) -> None:
        """The oldest messages, in order; they stay until Redis has them."""
        batch = [self._out[i] for i in range(min(AT_ONCE, len(self._out)))]
        if batch:
            async with self._redis.pipeline(transaction=False) as pipe:
                for message in batch:
                    pipe.xadd(self._names.web(message.web), message.fields(), maxlen=REPLIES_KEPT, approximate=True)
                await pipe.execute()
        for _ in batch:
            self._out.popleft()
        if not self._out:
            self._has_out.clear()
