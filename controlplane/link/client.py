"""The web process's end of the link: sends requests and questions to the engine, and shares out what comes back.

Rule: a request ends exactly once for its caller: completed, or with an error that says what happened. It is sent again
only while nothing of its answer was shown. What an engine of an older epoch says is ignored. A caller that leaves
cancels its request. Nobody waits longer than `SILENT_S` for an engine that does not speak.
Must not know: HTTP, keys, the database.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from redis.asyncio import Redis

from controlplane.link.connection import AGAIN_S, AWAY, BLOCK_MS, Names, end
from controlplane.link.messages import (
    ANSWERS,
    ITEMS,
    VERSION,
    Facts,
    Message,
    Problem,
    Question,
    error_of,
    mismatch,
    read,
    written,
)
from optimizer.core.errors import BackendUnavailable, GenerationFailed, SystemFull
from optimizer.core.events import Resident
from optimizer.core.request import Request
from optimizer.core.tiers import Catalogue
from optimizer.ports import Completed, ModelInfo, Reply

log = logging.getLogger("narrowgauge.link")

HERE_EVERY_S = 1.0
SILENT_S = 8.0  # an engine that has not spoken for so long does not answer any more; a takeover takes less
ANSWER_S = 5.0  # how long a question waits for its answer
BACKLOG = 2_000  # most messages that wait in Redis for the engine; what comes on top is refused
FULL_RETRY_S = 2.0
AT_ONCE = 200
TRIES = 4  # times one request is submitted at most
STREAM_KEPT_MS = 60_000  # how long Redis keeps the stream of a web process that is gone

_ADD = """
if tonumber(ARGV[1]) > 0 and redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return false end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
"""


@dataclass(slots=True, eq=False)
class _Ticket:
    """One open request or question."""

    id: str
    kind: str  # submit | ask
    body: bytes
    items: asyncio.Queue[Message | Exception] = field(default_factory=asyncio.Queue)
    shown: int = 0  # numbered items that have come
    tries: int = 0
    listed: bool = False  # in `here`: the engine must know it
    over: bool = False

    def end(self, last: Message | Exception) -> None:
        if not self.over:
            self.over = True
            self.items.put_nowait(last)


@dataclass(slots=True, eq=False)
class _Post:
    """One message on its way out; `sent` tells how it went."""

    message: Message
    limit: int
    sent: asyncio.Future[bool]


class LinkClient:
    """An `optimizer.ports.Engine` that is somewhere else. `start` it on the loop that submits."""

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._names = names
        self.name = uuid4().hex[:12]
        self._tickets: dict[str, _Ticket] = {}
        self._count = 0
        self._posts: asyncio.Queue[_Post] = asyncio.Queue()
        self._epoch = 0
        self._heard = 0.0  # monotonic; when an engine spoke last
        self._facts: Facts | None = None
        self._foreign = 0  # the version that an engine of another release speaks
        self._known = asyncio.Event()  # an engine has spoken
        self._reachable = True
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._heard = time.monotonic()  # patience counts from now
        self._loops = [asyncio.create_task(loop()) for loop in (self._read, self._write, self._here)]

    async def stop(self) -> None:
        """End what is open, and say so to the engine as far as that is possible."""
        for ticket in list(self._tickets.values()):
            ticket.end(BackendUnavailable("Narrowgauge is shutting down; try again in a moment"))
        await asyncio.sleep(0)  # the callers' own cancels go out first
        try:
            async with asyncio.timeout(1.0):
                await self._post("here", body=b"[]")
        except (BackendUnavailable, TimeoutError):
            pass  # the engine finds out by itself
        await end(self._loops)

    async def first_pong(self, patience_s: float) -> None:
        """Wait until an engine has spoken, or so long."""
        try:
            async with asyncio.timeout(patience_s):
                await self._known.wait()
        except TimeoutError:
            pass

    # the Engine port -----------------------------------------------------------------------------------

    @property
    def backend_name(self) -> str:
        return self._served().backend_name

    @property
    def simulated(self) -> bool:
        return self._served().simulated

    def catalogue(self) -> Catalogue:
        return self._served().catalogue

    async def models(self) -> Sequence[ModelInfo]:
        return await self.ask("models")

    async def residents(self) -> Sequence[Resident]:
        return await self.ask("residents")

    def unready(self) -> str:
        return self._silence() or self._served().unready

    async def submit(self, request: Request) -> AsyncGenerator[Reply, None]:
        ticket = await self._opened("submit", written(request), BACKLOG)
        try:
            while True:
                item = await ticket.items.get()
                if isinstance(item, Exception):
                    raise item
                reply = read(item.body, ITEMS[item.kind])
                yield reply
                if isinstance(reply, Completed):
                    return
        finally:
            self._close(ticket)

    async def ask(self, name: str, *arguments: Any) -> Any:
        """The answer to a question (`messages.ANSWERS`). Raises what the desk raises, or BackendUnavailable."""
        ticket = await self._opened("ask", written(Question(name, list(arguments))), limit=0)
        try:
            async with asyncio.timeout(ANSWER_S):
                item = await ticket.items.get()
        except TimeoutError:
            raise BackendUnavailable(f"the engine did not answer within {ANSWER_S:g} s; try again") from None
        finally:
            self._close(ticket)
        if isinstance(item, Exception):
            raise item
        answer = ANSWERS[name].validate_json(item.body)
        if isinstance(answer, Facts):
            self._facts = answer
        return answer

    def _served(self) -> Facts:
        if self._facts is None and self._foreign:
            raise mismatch(self._foreign)
        if self._facts is None:
            raise BackendUnavailable("no engine has answered yet; try again in a moment")
        return self._facts

    def _silence(self) -> str:
        """Why no engine can be reached; "" when one can."""
        silent_s = time.monotonic() - self._heard
        return f"no engine has answered for {silent_s:.0f} s" if silent_s > SILENT_S else ""

    # tickets -------------------------------------------------------------------------------------------

    async def _opened(self, kind: str, body: bytes, limit: int) -> _Ticket:
        self._served()
        if silence := self._silence():
            raise BackendUnavailable(f"{silence}; try again in a moment")
        self._count += 1
        ticket = _Ticket(f"{self.name}-{self._count}", kind, body)
        self._tickets[ticket.id] = ticket
        try:
            await self._send(ticket, limit)
        except BaseException:
            self._close(ticket)
            raise
        return ticket

    async def _send(self, ticket: _Ticket, limit: int) -> None:
        ticket.tries += 1
        if not await self._post(ticket.kind, ticket.id, ticket.body, limit):
            ticket.over = True
            raise SystemFull(
                f"{limit} messages wait for the engine already; try again in {FULL_RETRY_S:g} s",
                retry_after_s=FULL_RETRY_S,
            )

    def _close(self, ticket: _Ticket) -> None:
        self._tickets.pop(ticket.id, None)
        if not ticket.over and ticket.kind == "submit":
            ticket.over = True
            self._posts.put_nowait(self._letter("cancel", ticket.id))

    def _again(self, ticket: _Ticket) -> None:
        """The engine does not know it (any more), and nothing of it was shown."""
        ticket.listed = False

        def seen(sent: asyncio.Future[bool]) -> None:
            if sent.cancelled():
                return
            if error := sent.exception():
                ticket.end(error if isinstance(error, Exception) else RuntimeError(str(error)))

        ticket.tries += 1
        post = self._letter("submit", ticket.id, ticket.body)
        post.sent.add_done_callback(seen)
        self._posts.put_nowait(post)

    # out -----------------------------------------------------------------------------------------------

    def _letter(self, kind: str, of: str = "", body: bytes = b"", limit: int = 0) -> _Post:
        sent: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return _Post(Message(kind, of, self.name, body=body), limit, sent)

    async def _post(self, kind: str, of: str = "", body: bytes = b"", limit: int = 0) -> bool:
        """False when it was refused because too much waits. Raises BackendUnavailable when Redis is away."""
        post = self._letter(kind, of, body, limit)
        self._posts.put_nowait(post)
        return await post.sent

    async def _write(self) -> None:
        """One writer, so that what is written has an order: a `here` lists what was submitted before it."""
        while True:
            batch = [await self._posts.get()]
            while len(batch) < AT_ONCE and not self._posts.empty():
                batch.append(self._posts.get_nowait())
            try:
                results = await self._written(batch)
            except AWAY as error:
                if self._reachable:
                    log.warning("Redis cannot be reached: %s", error)
                self._reachable = False
                for post in batch:
                    _settle(post.sent, BackendUnavailable("the message store (Redis) does not answer; try again"))
                continue
            if not self._reachable:
                log.warning("Redis is reached again")
            self._reachable = True
            for post, result in zip(batch, results, strict=True):
                _settle(post.sent, result is not None)

    async def _written(self, batch: list[_Post]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for post in batch:
                message = post.message
                if message.kind == "submit" and (ticket := self._tickets.get(message.id)):
                    ticket.listed = True
                if message.kind == "here" and not message.body:
                    listed = [ticket.id for ticket in self._tickets.values() if ticket.listed and not ticket.over]
                    message = Message("here", web=self.name, body=_ids(listed))
                flat = [part for pair in message.fields().items() for part in pair]
                pipe.eval(_ADD, 1, self._names.engine, post.limit, *flat)
            return list(await pipe.execute())

    async def _here(self) -> None:
        """Say every second that we live and what is open; give up on an engine that says nothing."""
        while True:
            try:
                await self._post("here")
                await self._redis.pexpire(self._names.web(self.name), STREAM_KEPT_MS)
            except (BackendUnavailable, *AWAY):
                pass  # silence tells
            if silence := self._silence():
                for ticket in list(self._tickets.values()):
                    ticket.end(BackendUnavailable(f"{silence}; send the request again in a moment"))
            await asyncio.sleep(HERE_EVERY_S)

    # in ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        stream, last = self._names.web(self.name), b"0"
        while True:
            try:
                found = await self._redis.xread({stream: last}, count=AT_ONCE, block=BLOCK_MS)
                for _, entries in found or ():
                    for number, fields in entries:
                        last = number
                        self._take(fields)
                    await self._redis.xtrim(stream, minid=last, approximate=False)
            except AWAY:
                await asyncio.sleep(AGAIN_S)

    def _take(self, fields: dict[bytes, bytes]) -> None:
        try:
            message = Message.of(fields)
            self._handle(message)
        except (KeyError, ValueError, ValidationError):
            log.exception("a message that cannot be read")

    def _handle(self, message: Message) -> None:
        ticket = self._tickets.get(message.id)
        if message.version != VERSION:
            self._foreign = message.version
            if ticket is not None:
                ticket.end(mismatch(message.version))
            return
        if message.epoch < self._epoch:
            return  # a late word of an engine that another has replaced
        if message.epoch > self._epoch:
            log.info("the engine of epoch %d speaks", message.epoch)
            self._epoch = message.epoch
        self._heard = time.monotonic()
        if message.kind == "pong":
            self._facts = read(message.body, Facts)
            self._known.set()
        elif ticket is None or ticket.over:
            return  # its caller has left
        elif message.kind == "version":
            ticket.end(mismatch(message.version))
        elif message.kind == "failed":
            ticket.end(error_of(read(message.body, Problem)))
        elif message.kind == "answer":
            ticket.end(message)
        elif message.kind == "lost":
            self._lost(ticket, answered=bool(message.number))
        else:
            self._item(ticket, message)

    def _lost(self, ticket: _Ticket, *, answered: bool) -> None:
        if not ticket.listed:
            return  # it is on its way again
        if answered:
            ticket.end(GenerationFailed("the answer was lost on its way; send the request again"))
        elif ticket.shown:
            ticket.end(GenerationFailed("the engine was replaced while it answered; send the request again"))
        elif ticket.tries >= TRIES:
            ticket.end(BackendUnavailable("the engine was lost repeatedly; send the request again in a moment"))
        else:
            self._again(ticket)

    def _item(self, ticket: _Ticket, message: Message) -> None:
        if message.number and message.number <= ticket.shown:
            return  # a second copy
        if message.number > ticket.shown + 1:
            self._posts.put_nowait(self._letter("cancel", ticket.id))
            ticket.end(GenerationFailed("a part of the answer was lost on its way; send the request again"))
            return
        ticket.shown += message.number > 0
        if message.kind == "completed":
            ticket.end(message)
        else:
            ticket.items.put_nowait(message)


def _settle(sent: asyncio.Future[bool], result: bool | Exception) -> None:
    if sent.done():
        return  # its caller has left
    if isinstance(result, Exception):
        sent.set_exception(result)
        sent.exception()  # seen: nobody waits for a cancel
    else:
        sent.set_result(result)


def _ids(ids: list[str]) -> bytes:
    return ("[" + ",".join(f'"{name}"' for name in ids) + "]").encode()
