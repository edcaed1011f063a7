"""Works durable tasks off: claims a few, puts them to the engine, stores each result once.

It lives where the engine lives. Several may run on one database: a claim has an epoch and a lease (stores/durable.py),
so a task whose runner died or lost its lease is run again, and of two results the database takes one.

Rule: never more of a priority class before the engine than `durable_in_flight`. Refused for the moment (queue full,
paused, no model) means later, not failed; what breaks off is begun again, at most `durable_attempts` times.
Must not know: HTTP; how the engine chooses or schedules.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from django.db import DatabaseError

from controlplane.api.schemas import TaskIn
from controlplane.models import DurableTask
from controlplane.stores import durable
from controlplane.stores.durable import Held
from controlplane.tables import Tables
from controlplane.task_form import as_request, outcome
from controlplane.wire.errors import problem_of
from optimizer.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    DeadlineUnreachable,
    GenerationFailed,
    InvalidRequest,
    NarrowgaugeError,
    Refused,
)
from optimizer.core.request import Priority, Request
from optimizer.ports import Completed, Engine, Started

log = logging.getLogger("narrowgauge.tasks")

LOOK_EVERY_S = 1.0  # how soon a task stored by another process is seen
LEASE_S = 6.0  # how long a runner may be silent before others take its tasks
RENEW_EVERY_S = 2.0
UNAVAILABLE_RETRY_S = 2.0  # after "no model can be served right now"
BROKEN_RETRY_S = 2.0  # after a generation that broke off; twice as long each time
LONGEST_RETRY_S = 60.0
DATABASE_RETRY_S = 0.5  # how often the end of a task is tried while the database is away

Status = DurableTask.Status


class InternalError(NarrowgaugeError):
    """A bug of ours showed while a task ran; another attempt may not meet it."""


class TaskRunner:
    """`start()` on the engine's loop; `await stop()` before the engine closes."""

    def __init__(
        self,
        engine: Engine,
        tables: Callable[[], Tables],
        in_database: Callable[..., Awaitable[Any]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`in_database` runs ORM work off the loop and returns its result."""
        self.name = uuid4().hex
        self.waiting = 0  # tasks that nobody has claimed, as of the last renewal
        self.ended: Counter[str] = Counter(dict.fromkeys(DurableTask.ENDED, 0))  # stored here, by status
        self.put_back = 0  # tries that came to nothing
        self._engine = engine
        self._tables = tables
        self._in_database = in_database
        self._wall_clock = wall_clock
        self._running: dict[tuple[int, int], tuple[Held, asyncio.Task[None]]] = {}  # by number and epoch
        self._news = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._renewed = -RENEW_EVERY_S  # on the monotonic clock

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Stop working and give back what was not done, so that it need not wait for the lease to end."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        with suppress(DatabaseError):  # then their leases run out
            await self._in_database(durable.give_all_back, self.name)

    def changed(self) -> None:
        """Tasks were stored or cancelled in this process: look at once."""
        self._renewed = -RENEW_EVERY_S
        self._news.set()

    @property
    def in_flight(self) -> int:
        """Tasks before the engine now."""
        return len(self._running)

    # the loop --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        away = False
        while True:
            try:
                await self._look()
                away = False
            except DatabaseError as error:
                if not away:
                    log.error("durable tasks wait: the database does not answer: %s", error)
                away = True
            except Exception:
                log.exception("looking for durable tasks broke; tried again")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()
            self._news.clear()

    async def _look(self) -> None:
        """One round: keep and check the claims, take over what others lost, take more."""
        now, limits = self._wall_clock(), self._tables().thresholds
        if time.monotonic() - self._renewed >= RENEW_EVERY_S:
            mine = await self._in_database(durable.renew, self.name, now, LEASE_S)
            self._renewed = time.monotonic()
            for key, (_, task) in list(self._running.items()):
                if key not in mine:  # cancelled, or taken over after we were silent for too long
                    task.cancel()
            await self._in_database(durable.requeue_lost, self.name, now, limits.durable_attempts)
            await self._in_database(durable.end_batches, now)
            self.waiting = await self._in_database(durable.waiting)
        having = Counter((held.priority, held.agent) for held, _ in self._running.values())
        free = {lane: limits.durable_in_flight - self._in_lane(lane) for lane in Priority}
        if any(places > 0 for places in free.values()):
            for held in await self._in_database(durable.claim, self.name, free, having, now, LEASE_S):
                key = (held.number, held.epoch)
                task = asyncio.get_running_loop().create_task(self._run(held))
                self._running[key] = held, task
                task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("running a durable task broke", exc_info=task.exception())
        held, _ = self._running.pop(key, (None, None))
        if held is not None and self._in_lane(held.priority) <= self._tables().thresholds.durable_in_flight // 2:
            self._news.set()  # half the lane is free: worth a look, without one look per task

    def _in_lane(self, priority: int) -> int:
        return sum(held.priority == priority for held, _ in self._running.values())

    # one task --------------------------------------------------------------------------------------------

    async def _run(self, held: Held) -> None:
        profile = self._tables().agents.get(held.agent)
        keep_prompt = self._tables().thresholds.store_prompts and (profile is None or profile.store_prompts)
        begun = False
        try:
            if profile is None:
                raise InvalidRequest("its agent was deleted")
            started: Started | None = None
            async with aclosing(self._engine.submit(self._request(held))) as replies:
                async for reply in replies:
                    if isinstance(reply, Started):
                        started, begun = reply, True
                        if not await self._stored(durable.begun, held, self._wall_clock()):
                            return  # cancelled meanwhile, or somebody else's by now
                    elif isinstance(reply, Completed) and started is not None:
                        await self._finish(held, Status.SUCCEEDED, keep_prompt, outcome=outcome(started, reply))
                        return
            raise GenerationFailed("the answer broke off")
        except NarrowgaugeError as error:
            await self._failed(held, error, begun, keep_prompt)
        except Exception as error:
            log.exception("durable task %s broke", held.public_id)
            text = f"internal error ({type(error).__name__}); the log has it under {held.public_id}"
            await self._failed(held, InternalError(text), begun, keep_prompt)

    def _request(self, held: Held) -> Request:
        task = TaskIn.model_validate(held.body)
        request = replace(as_request(task, held.agent, held.request_id), priority=Priority(held.priority))
        if task.deadline_s is None:
            return request
        left_s = held.created_at + task.deadline_s - self._wall_clock()  # it counts from acceptance
        if left_s <= 0:
            raise DeadlineUnreachable("its deadline passed while it waited", retry_after_s=0.0)
        return replace(request, deadline_s=left_s)

    async def _failed(self, held: Held, error: NarrowgaugeError, begun: bool, keep_prompt: bool) -> None:
        """What an error means: later, another attempt, or the end."""
        now, attempts = self._wall_clock(), held.attempts + 1
        if isinstance(error, Cancelled):
            await self._finish(held, Status.CANCELLED, keep_prompt, error=_said(error))
        elif isinstance(error, Refused) and not isinstance(error, DeadlineUnreachable):
            delay_s = min(max(error.retry_after_s, UNAVAILABLE_RETRY_S), LONGEST_RETRY_S)
            await self._put_back(durable.give_back, held, delay_s, now)
        elif isinstance(error, BackendUnavailable) and not begun:
            await self._put_back(durable.give_back, held, UNAVAILABLE_RETRY_S, now)
        elif isinstance(error, BackendError | InternalError) and attempts < self._tables().thresholds.durable_attempts:
            delay_s = min(BROKEN_RETRY_S * 2.0**held.attempts, LONGEST_RETRY_S)
            await self._put_back(partial(durable.give_back, counted=not begun), held, delay_s, now)
        else:
            await self._finish(held, Status.FAILED, keep_prompt, error=_said(error))

    async def _put_back(self, write: Callable[..., bool], held: Held, delay_s: float, now: float) -> None:
        self.put_back += bool(await self._stored(write, held, delay_s, now))

    async def _finish(self, held: Held, status: str, keep_prompt: bool, **result: Any) -> None:
        write = partial(durable.finish, keep_prompt=keep_prompt, **result)
        if await self._stored(write, held, status, self._wall_clock()):
            self.ended[status] += 1
        else:
            log.info("the result of %s came too late: it was cancelled or is another runner's", held.public_id)

    async def _stored(self, write: Callable[..., Any], *arguments: Any) -> Any:
        """Write, and while the database is away try again: a result is not thrown away for that."""
        while True:
            try:
                return await self._in_database(write, *arguments)
            except DatabaseError as error:
                log.warning("a durable task's state is not written yet: %s", error)
                await asyncio.sleep(DATABASE_RETRY_S)


def _said(error: NarrowgaugeError) -> dict[str, str]:
    """An error as callers read it."""
    problem = problem_of(error)
    kind = (problem.code or problem.kind) if problem else "internal_error"
    return {"type": kind, "message": str(error)}
