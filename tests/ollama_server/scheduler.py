"""Ollama's scheduling rules (server/sched.go), as research/peers.md found them, on a modelled machine.

Rule: behave as Ollama does, faults included, so that what beats this beats Ollama:
- a request whose model is loaded under the same runner options bypasses the queue and waits, unbounded, for one
  of the model's parallel slots; every other request, one whose model is just being loaded too, stands in ONE
  first-in-first-out queue of `max_queue`;
- one loop takes the queue's head, and blocks everything behind it until that model is in;
- what does not fit evicts an idle model first, else the one with the shortest keep_alive, then by name; a busy one
  is evicted once all its requests, waiting ones included, have ended;
- a request that carries keep_alive resets the model's, even while it is being pushed out (the stall of #17408);
- only the first model may exceed the memory (it spills to the CPU);
- the driver may count freed memory as taken for `memory_lag_s` more: Ollama waits that out after its own
  evictions, not after one by keep_alive 0.
Must not know: HTTP.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from optimizer.core.tiers import ModelSpec
from optimizer.machine import Machine, MachineModel, Run

KEEP_ALIVE_S = 300.0
RUNNER_OPTIONS = {"num_ctx": 4096, "num_batch": 512, "num_gpu": -1, "main_gpu": 0, "use_mmap": None, "num_thread": 0}


class Busy(Exception):
    """The queue is full."""


class LoadError(Exception):
    """The runner did not come up."""


@dataclass(eq=False)
class Runner:
    """One loaded model, or one being loaded while not `ready`."""

    model: str
    options: Mapping[str, Any]
    keep_alive_s: float  # in the machine's own time, not yet divided by the speed
    slots: asyncio.Semaphore
    ready: bool = False
    vram_mb: float = 0.0
    refs: int = 0  # requests that hold it, waiting ones included
    timer: asyncio.TimerHandle | None = None
    expires_at: float = 0.0  # time.time()
    working: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: wedged until it is unloaded


@dataclass(eq=False)
class _Pending:
    model: str
    options: Mapping[str, Any]
    keep_alive_s: float | None
    runner: asyncio.Future[Runner]


@dataclass
class Stats:
    """Counters since the start or the last reset."""

    requests: Counter[str] = field(default_factory=Counter)  # per model, answered or not
    answered: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)
    evictions: Counter[str] = field(default_factory=Counter)
    reloads: int = 0  # loads because the runner options differed
    abandoned: int = 0  # clients that left
    refused: int = 0  # 503
    overlaps: int = 0  # runs that started beside a run of another model
    inside: int = 0  # prompts that are in the server now, queued ones included; a call that only loads is none
    max_inside: int = 0
    max_running: dict[str, int] = field(default_factory=dict)  # per model
    max_running_in_all: int = 0
    tokens_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        plain = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}
        return plain | {"total_loads": self.loads.total(), "total_evictions": self.evictions.total()}


class Scheduler:
    """Runners on one machine. `acquire`, `run` on it, `release`."""

    def __init__(
        self, specs: Mapping[str, ModelSpec], *, speed: float, slots: int, vram_mb: float, max_queue: int
    ) -> None:
        self.speed = speed
        self.sizes_mb = {name: float(spec.footprint_mb) for name, spec in specs.items()}
        capped = {name: replace(s, footprint_mb=int(min(s.footprint_mb, vram_mb))) for name, s in specs.items()}
        self.machine = Machine(MachineModel(usable_mb=vram_mb, specs=capped).faster(speed), time.monotonic())
        self.stats = Stats()
        self.loaded: dict[str, Runner] = {}
        self.leaving: dict[str, Runner] = {}  # being unloaded: still in memory
        self.fail_loads = 0
        self.slow_load = 1.0
        self.memory_lag_s = 0.0
        self._lagging: list[tuple[float, float]] = []  # (until, MB) freed and not yet seen as free
        self.progress = asyncio.Event()  # cleared: the whole server is wedged
        self.progress.set()
        self._slots = slots
        self._max_queue = max_queue
        self._queue: deque[_Pending] = deque()
        self._arrived = asyncio.Event()
        self._unloaded = asyncio.Event()
        self._unloads: set[asyncio.Task[None]] = set()
        self._ids = itertools.count()
        self._tick_s = 0.02 if speed >= 5 else 0.005
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop_task = asyncio.create_task(self._serve_queue())

    async def close(self) -> None:
        tasks = [task for task in (self._loop_task, *self._unloads) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in self.loaded.values():
            self._stop_timer(runner)

    # --- requests -----------------------------------------------------------------------------

    @asynccontextmanager
    async def runner(
        self, model: str, options: Mapping[str, Any], keep_alive_s: float | None, *, only_load: bool = False
    ) -> AsyncIterator[Runner]:
        """Hold a runner of `model`. Raises Busy, LoadError."""
        self.stats.requests[model] += 1
        self.stats.inside += not only_load
        self.stats.max_inside = max(self.stats.max_inside, self.stats.inside)
        try:
            runner = await self._acquire(model, options, keep_alive_s)
            try:
                yield runner
            finally:
                self._release(runner)
        except asyncio.CancelledError:
            self.stats.abandoned += 1
            raise
        finally:
            self.stats.inside -= not only_load

    async def _acquire(self, model: str, options: Mapping[str, Any], keep_alive_s: float | None) -> Runner:
        runner = self.loaded.get(model)
        if runner is not None and runner.ready and runner.options == options:
            self._take(runner, keep_alive_s)
            return runner
        if len(self._queue) >= self._max_queue:
            self.stats.refused += 1
            raise Busy
        pending = _Pending(model, options, keep_alive_s, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._arrived.set()
        try:
            return await asyncio.shield(pending.runner)
        except asyncio.CancelledError:
            if pending.runner.done() and not pending.runner.cancelled() and not pending.runner.exception():
                self._release(pending.runner.result())
            pending.runner.cancel()
            raise

    def _take(self, runner: Runner, keep_alive_s: float | None) -> None:
        runner.refs += 1
        self._stop_timer(runner)
        if keep_alive_s is not None:
            runner.keep_alive_s = keep_alive_s

    def _release(self, runner: Runner) -> None:
        runner.refs -= 1
        if runner.refs == 0 and self.loaded.get(runner.model) is runner and runner.ready:
            self._idle(runner)

    def _idle(self, runner: Runner) -> None:
        self._stop_timer(runner)
        if runner.keep_alive_s <= 0:
            self._unload(runner)
            return
        delay_s = min(runner.keep_alive_s / self.speed, 1e7)
        runner.expires_at = time.time() + delay_s
        runner.timer = asyncio.get_running_loop().call_later(delay_s, self.expire, runner.model)

    @staticmethod
    def _stop_timer(runner: Runner) -> None:
        if runner.timer:
            runner.timer.cancel()
            runner.timer = None

    # --- the queue, and memory ----------------------------------------------------------------

    async def _serve_queue(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            pending = self._queue.popleft()
            while not pending.runner.done():
                await self.progress.wait()
                if await self._served(pending):
                    break

    async def _served(self, pending: _Pending) -> bool:
        """One turn for the queue's head: whether it is done with. Otherwise something has been unloaded."""
        if self._unloads:
            await asyncio.wait(self._unloads)
        runner = self.loaded.get(pending.model)
        if runner is not None and runner.options == pending.options:
            self._take(runner, pending.keep_alive_s)
            pending.runner.set_result(runner)
            return True
        if runner is None and (not self.loaded or self._fits(pending.model)):
            await self._load(pending)
            return True
        if runner is not None:
            self.stats.reloads += 1
        self._unloaded.clear()
        self.expire((runner or self._victim()).model)
        await self._unloaded.wait()
        await asyncio.sleep(self.memory_lag_s)
        return False

    def _fits(self, model: str) -> bool:
        return self.machine.model.footprint_mb(model) <= self._free_mb()

    def _free_mb(self) -> float:
        """As the driver tells it."""
        lagging_mb = sum(mb for until, mb in self._lagging if until > time.monotonic())
        return self.machine.model.usable_mb - self.machine.used_mb - lagging_mb

    def _victim(self) -> Runner:
        by_patience = sorted(self.loaded.values(), key=lambda runner: (runner.keep_alive_s, runner.model))
        return next((runner for runner in by_patience if runner.refs == 0), by_patience[0])

    async def _load(self, pending: _Pending) -> None:
        keep_alive_s = KEEP_ALIVE_S if pending.keep_alive_s is None else pending.keep_alive_s
        runner = Runner(pending.model, pending.options, keep_alive_s, asyncio.Semaphore(self._slots), refs=1)
        runner.working.set()
        runner.vram_mb = min(self.machine.model.footprint_mb(pending.model), max(0.0, self._free_mb()))
        self.loaded[pending.model] = runner
        self.stats.loads[pending.model] += 1
        ends_at = self.machine.load(pending.model, time.monotonic())
        await asyncio.sleep(
            ends_at - time.monotonic() + (self.slow_load - 1.0) * self.machine.model.load_s(pending.model)
        )
        await self._reach(ends_at)
        if self.fail_loads > 0:
            self.fail_loads -= 1
            self._unload(runner)
            if not pending.runner.done():
                pending.runner.set_exception(LoadError("llama runner process has terminated: exit status 2"))
            return
        runner.ready = True
        if pending.runner.done():
            self._release(runner)
        else:
            pending.runner.set_result(runner)

    def expire(self, model: str) -> None:
        """Unload as soon as nobody holds it; an absent model is no error."""
        if runner := self.loaded.get(model):
            self._stop_timer(runner)
            runner.keep_alive_s = 0.0
            if runner.refs == 0:
                self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        self.loaded.pop(runner.model, None)
        self.leaving[runner.model] = runner
        self.stats.evictions[runner.model] += 1
        ends_at = self.machine.evict(runner.model, time.monotonic())
        task = asyncio.create_task(self._finish_unload(runner.model, ends_at))
        self._unloads.add(task)
        task.add_done_callback(self._unloads.discard)

    async def _finish_unload(self, model: str, ends_at: float) -> None:
        await self._reach(ends_at)
        del self.leaving[model]
        self._lagging = [(time.monotonic() + self.memory_lag_s, self.machine.model.footprint_mb(model))]
        self._unloaded.set()

    async def _reach(self, at: float) -> None:
        """Bring the machine to a change that is due at `at`."""
        await asyncio.sleep(max(0.0, at - time.monotonic()) + 0.001)  # a timer may fire a nanosecond early
        self.machine.advance(time.monotonic())

    # --- runs ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def slot(self, runner: Runner) -> AsyncIterator[None]:
        """One of the runner's parallel slots."""
        async with runner.slots:
            mine = [run.model for run in self.machine.runs]
            if any(model != runner.model for model in mine):
                self.stats.overlaps += 1
            running = mine.count(runner.model) + 1
            self.stats.max_running[runner.model] = max(self.stats.max_running.get(runner.model, 0), running)
            self.stats.max_running_in_all = max(self.stats.max_running_in_all, len(mine) + 1)
            yield

    async def run(self, runner: Runner, prompt_tokens: int, output_tokens: int) -> AsyncIterator[Run]:
        """The run whenever it has moved on; the last time it is finished. Closing stops it."""
        run = self.machine.start(str(next(self._ids)), runner.model, prompt_tokens, output_tokens, time.monotonic())
        seen = 0
        try:
            while run.finished_at is None:
                now = time.monotonic()
                next_change = self.machine.next_change() or now + self._tick_s
                await asyncio.sleep(min(self._tick_s, max(0.0, next_change - now)))
                await self.progress.wait()
                await runner.working.wait()
                self.machine.advance(time.monotonic())
                if run.finished_at is None and run.tokens_out > seen:
                    seen = run.tokens_out
                    yield run
            self.stats.tokens_out += output_tokens
            yield run
        finally:
            self.machine.stop(run.id, time.monotonic())
