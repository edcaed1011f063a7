"""From the engine's replies to the client: whole answers, and streams with their early headers and keep-alives.

Rule: however an answer ends (whole, failed, client gone, server stopping), the engine's iterator is closed before
this module returns, so nothing of the request is left running.
Must not know: what a chunk looks like (a `StreamForm` does), routes, keys.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.wire.errors import Problem
from controlplane.wire.hints import started_headers, waiting_headers
from controlplane.wire.http import Exchange
from optimizer.core.errors import GenerationFailed
from optimizer.ports import Completed, Started, Waiting

_VECTORS_AT_ONCE = 16  # about 10 ms of rendering at 2048 dimensions


@dataclass(frozen=True, slots=True)
class Pace:
    """When a stream speaks although it has nothing to say, in seconds."""

    early_headers_s: float  # how long errors can still be proper HTTP errors
    keep_alive_s: float  # silence after which a waiting stream gets a sign of life


class StreamForm(Protocol):
    """One protocol's stream: each method renders bytes to write (b"" = nothing)."""

    content_type: bytes

    def waiting(self, waiting: Waiting | None) -> bytes: ...

    def started(self, started: Started) -> bytes: ...

    def delta(self, item: Any) -> bytes: ...

    def completed(self, completed: Completed) -> bytes: ...

    def failed(self, problem: Problem) -> bytes: ...


async def collect(exchange: Exchange, replies: AsyncGenerator[Any, None]) -> tuple[Started, Completed]:
    """Wait for a whole answer. Raises what the engine raises; a client that leaves cancels the caller."""
    exchange.watch()
    started: Started | None = None
    completed: Completed | None = None
    async with aclosing(replies):
        async for item in replies:  # to its very end: closing it before would be a cancel
            if isinstance(item, Started):
                started = item
            elif isinstance(item, Completed):
                completed = item
    if started is None or completed is None:
        raise GenerationFailed("the answer broke off")
    return started, completed


async def rendered(render: Callable[[], bytes], completed: Completed) -> bytes:
    """The body of an embedding answer; many vectors are rendered in a thread, because they take up to seconds."""
    return render() if len(completed.vectors) <= _VECTORS_AT_ONCE else await asyncio.to_thread(render)


class _Pull:
    """Takes items from an iterator with a time limit that does not disturb the iterator."""

    def __init__(self, replies: AsyncGenerator[Any, None]) -> None:
        self._replies = replies
        self._pending: asyncio.Task[Any] | None = None

    async def __call__(self, timeout_s: float) -> Any:
        """The next item, or None when none came in time (the next call goes on waiting for it)."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self._replies, _END))
        await asyncio.wait({self._pending}, timeout=timeout_s)
        if not self._pending.done():
            return None
        task, self._pending = self._pending, None
        return task.result()

    async def stop(self) -> None:
        """Stop a pending wait, so that the iterator can be closed."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})
            if not self._pending.cancelled():
                self._pending.exception()  # seen; the request is over anyway


_END = object()


async def stream(
    exchange: Exchange, replies: AsyncGenerator[Any, None], form: StreamForm, pace: Pace, *, simulated: bool
) -> None:
    """Send an answer as it comes. Raises what the engine raises; after the headers are out the boundary renders it.

    Headers wait for `Started` up to `early_headers_s`, so that they are complete and refusals are proper HTTP errors.
    `simulated` labels the answer where its own `Started` comes too late for the headers.
    """
    exchange.watch()
    async with aclosing(replies):
        started = await _until_started(exchange, replies, form, pace, simulated)
        if not exchange.headers_sent:
            await _send_headers(exchange, form, started_headers(started))
        await exchange.write(form.started(started))
        async for item in replies:  # to its very end: closing it before would be a cancel
            if isinstance(item, Completed):
                await exchange.end(form.completed(item))
            elif not isinstance(item, (Waiting, Started)):
                await exchange.write(form.delta(item))
    if not exchange.ended:
        raise GenerationFailed("the answer broke off")


async def _until_started(
    exchange: Exchange, replies: AsyncGenerator[Any, None], form: StreamForm, pace: Pace, simulated: bool
) -> Started:
    waiting: Waiting | None = None
    clock = asyncio.get_running_loop().time
    headers_due = clock() + pace.early_headers_s
    pull = _Pull(replies)
    try:
        while True:
            timeout_s = pace.keep_alive_s if exchange.headers_sent else max(0.0, headers_due - clock())
            item = await pull(timeout_s)
            if isinstance(item, Started):
                return item
            if item is _END or isinstance(item, Completed):
                raise GenerationFailed("the answer broke off")
            if isinstance(item, Waiting):
                waiting = item
                if not exchange.headers_sent and clock() < headers_due:
                    continue
            if not exchange.headers_sent:
                await _send_headers(exchange, form, waiting_headers(waiting, simulated))
            await exchange.write(form.waiting(waiting))
    finally:
        await pull.stop()


async def _send_headers(exchange: Exchange, form: StreamForm, headers: list[tuple[bytes, bytes]]) -> None:
    exchange.render_failure = form.failed
    plain = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]  # proxies must not collect chunks
    await exchange.start(200, form.content_type, [*headers, *plain])
