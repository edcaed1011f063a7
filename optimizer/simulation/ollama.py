"""Ollama's own queue, as in its source (server/sched.go and llm/server.go of v0.33), driven by our events.

Rule: faithful, including what hurts. A request for a loaded model bypasses the queue and waits on that model's
semaphore (NUM_PARALLEL), without limit; every other request goes through ONE first-in-first-out channel (MAX_QUEUE).
One loop takes the channel's head, and until that head's model is loaded nothing else in the channel moves. When it
does not fit, one victim is chosen: idle ones first, then the shortest keep-alive, then the path of the model's
file; its keep-alive becomes 0 and the loop blocks until it has unloaded, which needs the moment when nobody runs on
it or waits for it; new requests for it still bypass. No order, no priority, no fairness, no deadline.
Simplified: whether a model fits is the sum of footprints against the usable VRAM, for every policy alike.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from optimizer.core.commands import (
    CancelGeneration,
    Command,
    EvictModel,
    LoadModel,
    Reject,
    RejectReason,
    StartGeneration,
    WakeAt,
)
from optimizer.core.events import (
    Event,
    GenerationCancelled,
    GenerationFinished,
    ModelEvicted,
    ModelLoaded,
    RequestArrived,
    RequestCancelled,
    TimerFired,
)
from optimizer.core.job import Job

NUM_PARALLEL = 2
MAX_QUEUE = 512  # OLLAMA_MAX_QUEUE
KEEP_ALIVE_S = 300.0  # OLLAMA_KEEP_ALIVE
MAX_LOADED = 3  # OLLAMA_MAX_LOADED_MODELS, per GPU
BLOBS = {  # how the paths of the models' files begin, sha256-...: the tie-break among busy victims
    "tinyllama": "2af3b81862c6",
    "qwen2.5-coder:7b": "60e05f210007",
    "deepseek-r1:8b": "6340dc3229b0",
}


@dataclass(slots=True)
class _Runner:
    """A model in `loaded`. `references` counts running and waiting requests, as refCount does."""

    model: str
    keep_alive_s: float = KEEP_ALIVE_S
    ready: bool = False
    references: int = 0
    expires_at: float | None = None
    waiting: deque[Job] = field(default_factory=deque)
    slots: dict[int, str] = field(default_factory=dict)


class Ollama:
    """Runs with `slots_per_model`: NUM_PARALLEL limits each model, not the node."""

    def __init__(
        self,
        footprints_mb: Mapping[str, float],
        usable_mb: float,
        parallel: int = NUM_PARALLEL,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self._footprints_mb, self._usable_mb = footprints_mb, usable_mb
        self._parallel, self._max_queue = parallel, max_queue
        self._channel: deque[Job] = deque()
        self._head: Job | None = None  # what the loop is busy with
        self._head_left = False  # its client is gone; noticed when the loop comes round
        self._blocked = False  # the loop waits for an unload
        self._loading = False  # or for a load; one at a time
        self._loaded: dict[str, _Runner] = {}
        self._unloading: set[str] = set()
        self._runs_on: dict[str, str] = {}
        self._commands: list[Command] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        """The commands that follow from one event."""
        self._commands = []
        match event:
            case RequestArrived(job):
                self._arrived(job)
            case RequestCancelled(job_id):
                self._left(job_id, now)
            case ModelLoaded(model):
                self._ready(self._loaded[model], now)
            case ModelEvicted(model):
                self._unloading.discard(model)
                self._blocked = False
            case GenerationFinished(job_id) | GenerationCancelled(job_id):
                self._released(job_id, now)
            case TimerFired():
                self._expire(now)
            case _:
                pass
        self._loop()
        expiries = [runner.expires_at for runner in self._loaded.values() if runner.expires_at is not None]
        if expiries:
            self._commands.append(WakeAt(min(expiries)))
        return self._commands

    # --- getRunner, useLoadedRunner ---

    def _arrived(self, job: Job) -> None:
        if job.model in self._loaded:
            self._use(self._loaded[job.model], job)
        elif len(self._channel) >= self._max_queue:
            self._commands.append(Reject(job.id, RejectReason.SYSTEM_FULL, retry_after_s=0.0))
        else:
            self._channel.append(job)

    def _use(self, runner: _Runner, job: Job) -> None:
        runner.references += 1
        runner.expires_at = None
        runner.waiting.append(job)
        self._fill(runner)

    def _fill(self, runner: _Runner) -> None:
        while runner.ready and runner.waiting and len(runner.slots) < self._parallel:
            job = runner.waiting.popleft()
            slot = next(slot for slot in range(self._parallel) if slot not in runner.slots)
            runner.slots[slot] = job.id
            self._runs_on[job.id] = runner.model
            self._commands.append(StartGeneration(job.id, runner.model, slot))

    # --- processPending ---

    def _loop(self) -> None:
        while not self._blocked and not self._loading:
            if self._head is None or self._head_left:
                self._head, self._head_left = (self._channel.popleft() if self._channel else None), False
            head = self._head
            if head is None:
                return
            if head.model in self._loaded:
                self._head = None
                self._use(self._loaded[head.model], head)
            elif self._fits(head.model):
                self._loaded[head.model] = runner = _Runner(head.model)
                self._head = None
                runner.references, runner.waiting = 1, deque([head])
                self._commands.append(LoadModel(head.model))
                self._loading = True
            else:
                self._make_room()

    def _fits(self, model: str) -> bool:
        used_mb = sum(self._footprints_mb[name] for name in [*self._loaded, *self._unloading])
        return used_mb + self._footprints_mb[model] <= self._usable_mb and len(self._loaded) < MAX_LOADED

    def _make_room(self) -> None:
        self._blocked = True
        runners = sorted(
            self._loaded.values(), key=lambda runner: (runner.keep_alive_s, BLOBS.get(runner.model, runner.model))
        )
        if runners:
            victim = next((runner for runner in runners if runner.references == 0), runners[0])
            victim.keep_alive_s, victim.expires_at = 0.0, None
            if victim.references == 0:
                self._unload(victim)

    def _ready(self, runner: _Runner, now: float) -> None:
        runner.ready = True
        self._loading = False
        self._fill(runner)
        self._idle(runner, now)  # its client may have left meanwhile

    # --- processCompleted ---

    def _released(self, job_id: str, now: float) -> None:
        runner = self._loaded[self._runs_on.pop(job_id)]
        slot = next(slot for slot, owner in runner.slots.items() if owner == job_id)
        del runner.slots[slot]
        runner.references -= 1
        self._fill(runner)
        self._idle(runner, now)

    def _idle(self, runner: _Runner, now: float) -> None:
        if runner.references == 0 and runner.ready:
            if runner.keep_alive_s <= 0:
                self._unload(runner)
            else:
                runner.expires_at = now + runner.keep_alive_s

    def _expire(self, now: float) -> None:
        for runner in list(self._loaded.values()):
            if runner.expires_at is not None and runner.expires_at <= now:
                self._unload(runner)

    def _unload(self, runner: _Runner) -> None:
        del self._loaded[runner.model]
        self._unloading.add(runner.model)
        self._commands.append(EvictModel(runner.model))

    # --- a client that leaves ---

    def _left(self, job_id: str, now: float) -> None:
        if job_id in self._runs_on:
            self._commands.append(CancelGeneration(job_id))
        elif self._head is not None and self._head.id == job_id:
            self._head_left = True
        elif any(job.id == job_id for job in self._channel):
            self._channel = deque(job for job in self._channel if job.id != job_id)
        else:
            for runner in self._loaded.values():
                if any(job.id == job_id for job in runner.waiting):
                    runner.waiting = deque(job for job in runner.waiting if job.id != job_id)
                    runner.references -= 1
                    self._idle(runner, now)
                    return
