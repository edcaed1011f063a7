"""One node: one backend, with the runs, loads and evictions that were commanded for it.

Rule: the fleet decides, the node obeys. Each command becomes one task whose result is the next event. A backend
that is dead or wedged is declared lost: nothing is started on it until it answers a probe again.
Must not know: who asked, the cache, or which backend it drives.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from optimizer.core import commands, events
from optimizer.core.commands import Command
from optimizer.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    GenerationFailed,
    UnsupportedFeature,
)
from optimizer.core.events import Event
from optimizer.core.request import Kind
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.flight import Flight, Home
from optimizer.journal import Journal
from optimizer.ports import Backend, Embedded, Finished, LoadReport
from optimizer.refusals import refusal

log = logging.getLogger("narrowgauge.node")

RECOVERY_EVERY_S = 2.0  # how often a lost backend is tried again
LOOK_S = 2.0  # how long a failed run waits for the backend to say what it still holds
WATCH_EVERY_S = 1.0  # how often stalls and idleness are looked at


class Node:
    """Build it, `start` it on the loop that will submit, `close` it before that loop ends."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        home: Home,
        journal: Journal,
        tell: Callable[[Event, str], None],
        *,
        thresholds: Thresholds,
        catalogue: Catalogue,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.backend = backend
        self.not_ready = "starting"  # why nothing can be served here; "" when it can
        self.first_slot = 0  # its slots are numbered from here among all nodes'
        self._home = home
        self._journal = journal
        self._tell = tell
        self._thresholds, self._catalogue = thresholds, catalogue
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}  # generations by job id
        self._background: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._load_started: float | None = None
        self._load_clock_s = 0.0
        self._evicting = 0
        self._lives = 0  # of the backend: what was begun in an earlier one is void
        self._last_proof = 0.0  # when the backend last showed that it works
        self._closing = False

    # life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring the backend up and adopt what it holds; one that does not answer yet is waited for.

        Raises ModelFileMissing with what to do.
        """
        try:
            await self.backend.start()
            residents = tuple(await self.backend.residents())
        except BackendUnavailable as error:
            self.not_ready = ""
            self.lost(str(error))
        else:
            self._last_proof = self._clock()
            self.not_ready = ""
            self.handle(events.ResidencyObserved(residents))
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Cancel everything that runs; the backend stays, so that its callers can be told first."""
        self._closing = True
        self.not_ready = "shutting down"
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reconfigure(self, thresholds: Thresholds, catalogue: Catalogue) -> None:
        """New tables take effect at once; waiting and running requests go on."""
        if catalogue != self._catalogue:
            self._catalogue = catalogue
            self.handle(events.CatalogueChanged(catalogue))
        if thresholds != self._thresholds:
            self._thresholds = thresholds
            self.handle(events.ThresholdsChanged(thresholds))

    def load_time_s(self, now: float) -> float:
        """Seconds spent loading models so far, the load under way included."""
        return self._load_clock_s + (now - self._load_started if self._load_started is not None else 0.0)

    # events in, commands out -------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Tell the fleet what happened here; what it says comes back as commands."""
        if isinstance(event, events.TimerFired):
            self._timer = None
        self._tell(event, self.name)

    def obey(self, command: Command, now: float) -> None:
        """Begin to carry a command out, or end a request by it."""
        match command:
            case commands.StartGeneration(job_id, _, slot):
                flight = self._home.flights[job_id]
                flight.slot, flight.started = slot, now
                flight.load_s = self.load_time_s(now) - flight.loads_before_s[self.name]
                flight.last_token = now
                run = self._tasks[job_id] = self._spawn(self._generate(flight))
                run.add_done_callback(partial(self._unbegun, flight))
            case commands.CancelGeneration(job_id):
                task = self._tasks.get(job_id)
                if task is not None:
                    task.cancel()
            case commands.LoadModel(model):
                self._load_started = now
                self._journal.loading(model, now, self.name)
                self._spawn(self._load(model))
            case commands.EvictModel(model):
                self._evicting += 1
                self._journal.evicting(model, now, self.name)
                self._spawn(self._evict(model))
            case commands.Reject(job_id, reason, retry_after_s, predicted_s):
                self._home.refused(job_id, refusal(reason, retry_after_s, predicted_s))
            case commands.Fail(job_id, reason):
                self._home.refused(job_id, GenerationFailed(reason))
            case commands.WakeAt(at):
                if self._timer is not None:
                    self._timer.cancel()
                delay = max(0.0, at - self._clock())
                self._timer = asyncio.get_running_loop().call_later(delay, self.handle, events.TimerFired())

    # commands carried out ----------------------------------------------------------------------------

    async def _generate(self, flight: Flight) -> None:
        """Runs one generation to its end and reports exactly one event, unless the backend was declared lost."""
        attempt = flight.attempt
        event: Event
        try:
            finished = await (self._embed(flight) if _embeds(flight) else self._stream(flight))
        except asyncio.CancelledError:
            if self._closing:
                raise
            if flight.broken:
                event = events.GenerationFailed(flight.id, flight.broken, retry=not flight.items)
            else:
                event = events.GenerationCancelled(flight.id)
        except BackendError as error:
            event = events.GenerationFailed(flight.id, str(error), retry=not flight.items)
            await self._look_again()
        except UnsupportedFeature as error:
            flight.fail(error)
            event = events.GenerationFailed(flight.id, str(error), retry=False)
        else:
            event = events.GenerationFinished(
                flight.id, finished.prompt_tokens, finished.output_tokens, finished.prefill_s, finished.decode_s
            )
            self._home.completed(flight, finished)
        if attempt != flight.attempt:
            return  # the backend was lost meanwhile; the scheduler has been told already
        self._last_proof = self._clock()
        self._tasks.pop(flight.id, None)
        self._landed(flight, event)

    async def _look_again(self) -> None:
        """A failed run may mean that its model's process died: told before anything else is started on it."""
        try:
            async with asyncio.timeout(LOOK_S):
                residents = tuple(await self.backend.residents())
        except BackendUnavailable as error:
            self.lost(str(error))
            return
        except (BackendError, TimeoutError):
            return  # the watch deals with a backend that answers badly
        if not self.not_ready and self._settled:
            self.handle(events.ResidencyObserved(residents))

    def _unbegun(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """Tells the end of a run whose task was cancelled where it could not tell: before its first step, say."""
        if task.cancelled() and not self._closing and self._tasks.get(flight.id) is task:
            del self._tasks[flight.id]
            self._landed(flight, events.GenerationCancelled(flight.id))

    def _landed(self, flight: Flight, event: Event) -> None:
        self._journal.ran(flight, self._clock(), self.first_slot)
        if isinstance(event, events.GenerationFailed) and not flight.ended and not flight.followers:
            event = events.GenerationCancelled(flight.id)  # nobody waits for another try
        if isinstance(event, events.GenerationFailed) and event.retry and not flight.ended:
            flight.restart()
        elif isinstance(event, events.GenerationCancelled) and not flight.ended:
            flight.fail(Cancelled("the request was cancelled"))
        if flight.ended:
            self._home.gone(flight)
        self.handle(event)

    async def _stream(self, flight: Flight) -> Finished:
        call = replace(flight.shaped.call, slot=flight.slot or 0)
        async with aclosing(self.backend.generate(call)) as stream:
            async for item in stream:
                if isinstance(item, Finished):
                    return item
                now = self._clock()
                if flight.first_token is None:
                    flight.first_token = now
                    self.handle(events.PrefillFinished(flight.id))
                flight.last_token = now
                flight.tokens += 1
                flight.add(item)
        raise GenerationFailed(f"{call.model} ended its answer without saying so")

    async def _embed(self, flight: Flight) -> Finished:
        routed = flight.shaped.routed
        embedded: Embedded = await self.backend.embed(routed.model, routed.request.inputs, routed.request.options)
        flight.vectors = embedded.vectors
        return Finished("stop", embedded.prompt_tokens, 0)

    async def _load(self, model: str) -> None:
        spec, life = self._catalogue.models[model], self._lives
        timeout_s = self._thresholds.load_timeout_s
        event: Event
        report: LoadReport | None = None
        try:
            async with asyncio.timeout(timeout_s):
                report = await self.backend.load(spec)
        except BackendUnavailable as error:
            self.lost(str(error))
            return
        except TimeoutError:
            event = events.ModelLoadFailed(model, f"not loaded after {timeout_s:g} s")
        except BackendError as error:
            event = events.ModelLoadFailed(model, str(error))
            await self._look_again()
        else:
            event = events.ModelLoaded(model, report.footprint_mb, report.vram_mb, report.load_s)
            self._last_proof = self._clock()
        if life != self._lives:
            return
        now = self._clock()
        self._load_clock_s = self.load_time_s(now)
        self._load_started = None
        self._journal.loaded(model, now, report, self.name)
        if isinstance(event, events.ModelLoadFailed):
            log.warning("load of %s failed: %s", model, event.reason)
        elif report is not None:
            log.info("loaded %s: %.0f MB in %.2f s", model, report.vram_mb, report.load_s)
        self.handle(event)

    async def _evict(self, model: str) -> None:
        life = self._lives
        try:
            await self.backend.evict(model)
        except BackendError as error:
            self.lost(str(error))
            return
        if life != self._lives:
            return
        log.info("evicted %s", model)
        self._evicting -= 1
        self._journal.evicted(model, self._clock(), self.name)
        self.handle(events.ModelEvicted(model))

    # watching the backend ------------------------------------------------------------------------------

    @property
    def _settled(self) -> bool:
        """No load and no eviction is under way: what the backend says it holds is the whole truth."""
        return self._load_started is None and not self._evicting

    def _running(self) -> list[Flight]:
        flights = self._home.flights
        return [flights[job_id] for job_id in self._tasks if job_id in flights and not flights[job_id].ended]

    async def _watch(self) -> None:
        """Find a dead or wedged backend by a real one-token probe, when idle or when a run stalls."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self.not_ready:
                continue
            now, limits = self._clock(), self._thresholds
            running = self._running()
            stalled = [f for f in running if f.last_token is not None and now - f.last_token > limits.stall_timeout_s]
            idle = not running and self._load_started is None and now - self._last_proof > limits.probe_interval_s
            if not (stalled or idle):
                continue
            try:
                residents = tuple(await self.backend.residents())
                busy = {f.shaped.job.model for f in running}
                loaded = sorted((r.model for r in residents), key=busy.__contains__)  # idle models first
                await self.backend.probe(loaded[0] if loaded else None)
            except BackendError as error:
                self.lost(str(error))
            else:
                self._last_proof = self._clock()
                for flight in stalled:  # the backend works, this run does not
                    if task := self._tasks.get(flight.id):
                        flight.broken = f"{flight.shaped.job.model} gave no token for {limits.stall_timeout_s:g} s"
                        task.cancel()
                if self._settled:
                    self.handle(events.ResidencyObserved(residents))

    def lost(self, reason: str) -> None:
        """The backend is dead or wedged: its runs are over, and it is tried until it answers again."""
        if self.not_ready or self._closing:
            return
        log.error("%s: the backend is lost: %s", self.name, reason)
        self.not_ready = reason
        self._lives += 1
        self._load_started = None
        self._evicting = 0
        self._journal.backend_lost(reason, self._clock(), self.name)
        for job_id, task in list(self._tasks.items()):
            flight = self._home.flights.get(job_id)
            if flight is not None and not flight.ended and not flight.items:
                flight.restart()
            elif flight is not None:
                flight.attempt += 1
            task.cancel()
        self._tasks.clear()
        self.handle(events.BackendLost(reason))
        self._spawn(self._recover())

    async def _recover(self) -> None:
        while True:
            try:
                await self.backend.recover()
                await self.backend.probe(None)
                residents = tuple(await self.backend.residents())
                break
            except BackendError as error:
                self.not_ready = str(error)
                await asyncio.sleep(RECOVERY_EVERY_S)
        back = ", ".join(resident.model for resident in residents) or "no model loaded"
        log.warning("%s: the backend is back with %s", self.name, back)
        self.not_ready = ""
        self._last_proof = self._clock()
        self._journal.backend_recovered(self._clock(), self.name)
        self.handle(events.BackendRecovered(residents))

    # tasks -----------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A bug: say it once and take the process down rather than leave requests hanging.
            log.critical("a task of the node broke", exc_info=task.exception())
            self.not_ready = "an internal error; see the log"


def _embeds(flight: Flight) -> bool:
    return flight.shaped.routed.request.kind is Kind.EMBED
