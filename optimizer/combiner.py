"""Gathers similar short requests of agents that opted in, and answers them with one generation.

Rule: one future per request. Only requests that share everything but their question (the cache partition, hence
also the cache group) are combined. Whoever's part cannot be verified is told to ask singly (None). A model that
does not keep the format is soon left alone: small ones never do, and every attempt costs a whole answer.
Must not know: slots, models, records.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from uuid import uuid4

from optimizer.core import batching
from optimizer.core.errors import NarrowgaugeError
from optimizer.core.request import AUTO, Kind, Message, Request
from optimizer.pipeline import Routed
from optimizer.ports import Completed, Reply, Started

GIVE_UP = 2  # combined answers in a row with fewer than half of their parts verified
TRY_AGAIN = 200  # requests for such a model until it is given another chance

Run = Callable[[Request], AsyncGenerator[Reply, None]]


@dataclass(frozen=True, slots=True)
class Part:
    """A member's own answer out of a combined one; tokens are its even share."""

    started: Started
    completed: Completed
    members: int


@dataclass(slots=True, eq=False)
class _Batch:
    members: list[tuple[Routed, asyncio.Future[Part | None]]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Combiner:
    """`run` answers one request by itself; it is the runner's own `submit`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open: dict[str, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: Counter[str] = Counter()  # in a row, by model
        self._left_alone: Counter[str] = Counter()  # requests that were not combined because of them

    async def answer(self, routed: Routed, window_s: float, most: int) -> Part | None:
        """Wait for companions up to `window_s`, then for the combined answer; None = ask singly."""
        if not eligible(routed) or most < 2 or self._hopeless(routed.model):
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Part | None] = loop.create_future()
        batch = self._open.get(routed.partition)
        if batch is None:
            batch = self._open[routed.partition] = _Batch()
            batch.timer = loop.call_later(window_s, self._close, routed.partition)
        batch.members.append((routed, future))
        if len(batch.members) >= most:
            self._close(routed.partition)
        return await future

    def _hopeless(self, model: str) -> bool:
        if self._failures[model] < GIVE_UP:
            return False
        self._left_alone[model] += 1
        if self._left_alone[model] >= TRY_AGAIN:
            self._left_alone[model] = 0
            self._failures[model] = GIVE_UP - 1  # one more failure, and it is left alone again
        return True

    def _close(self, partition: str) -> None:
        batch = self._open.pop(partition, None)
        if batch is None:
            return
        if batch.timer is not None:
            batch.timer.cancel()
        members = [(routed, future) for routed, future in batch.members if not future.done()]
        if len(members) < 2:
            for _, future in members:
                future.set_result(None)
            return
        task = asyncio.get_running_loop().create_task(self._serve(members))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for _, future in members:
            future.add_done_callback(lambda _: _stop_unwanted(task, members))

    async def _serve(self, members: list[tuple[Routed, asyncio.Future[Part | None]]]) -> None:
        request = _combined([routed for routed, _ in members])
        started: Started | None = None
        completed: Completed | None = None
        try:
            async with aclosing(self._run(request)) as replies:
                async for reply in replies:
                    if isinstance(reply, Started):
                        started = reply
                    elif isinstance(reply, Completed):
                        completed = reply
        except NarrowgaugeError:
            pass  # each member asks singly and meets its own error, if it is still there
        finally:
            verified = _hand_out(members, started, completed)
            if completed is not None:
                model = members[0][0].model
                self._failures[model] = 0 if 2 * verified >= len(members) else self._failures[model] + 1


def eligible(routed: Routed) -> bool:
    """One short question to a chat model, with nothing that a shared prompt could disturb."""
    request = routed.request
    return (
        routed.agent.combine
        and request.kind is Kind.CHAT
        and sum(m.role == "user" for m in request.messages) == 1
        and request.messages[-1].role == "user"
        and not request.messages[-1].images
        and not request.tools
        and request.format is None
        and request.deadline_s is None
        and "seed" not in request.options
        and "stop" not in request.options
        and batching.combinable(routed.question)
    )


def _combined(routes: list[Routed]) -> Request:
    first = routes[0].request
    prompt = batching.combine([routed.question for routed in routes])
    options = dict(first.options)
    if "num_predict" in options:
        options["num_predict"] = int(options["num_predict"]) * len(routes)
    return replace(
        first,
        id=f"combined-{uuid4().hex}",
        messages=(*first.messages[:-1], Message("user", prompt)),
        wanted=routes[0].model if first.wanted != AUTO else first.wanted,
        options=options,
        task=replace(first.task, template="", context=""),
        protocol="combined",
        cache_read=False,
        cache_write=False,
    )


def _hand_out(
    members: list[tuple[Routed, asyncio.Future[Part | None]]], started: Started | None, completed: Completed | None
) -> int:
    """Gives every member its part, or None; how many parts were verified."""
    parts: list[str | None] = [None] * len(members)
    if completed is not None:
        parts = batching.split(completed.text, len(members), whole=completed.done_reason == "stop")
    for (_, future), text in zip(members, parts, strict=True):
        if future.done():
            continue
        if text is None or started is None or completed is None:
            future.set_result(None)
            continue
        share = replace(
            completed,
            text=text,
            thinking="",
            prompt_tokens=completed.prompt_tokens // len(members),
            output_tokens=completed.output_tokens // len(members),
        )
        future.set_result(Part(started, share, len(members)))
    return sum(part is not None for part in parts)


def _stop_unwanted(task: asyncio.Task[None], members: list[tuple[Routed, asyncio.Future[Part | None]]]) -> None:
    if all(future.cancelled() for _, future in members):
        task.cancel()
