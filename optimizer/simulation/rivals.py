"""The gateways one could put in front of Ollama instead: what they do with the same requests.

Rule: each is the honest version of its idea: both slots in use, models side by side where they fit, the least
recently used model evicted first and only when nobody runs on it. None knows more than the scheduler does.
Must not know: the true length of an answer.
"""

from collections.abc import Mapping

from optimizer.core.commands import CancelGeneration, Command, EvictModel, LoadModel, StartGeneration
from optimizer.core.events import (
    Event,
    GenerationCancelled,
    GenerationFinished,
    ModelEvicted,
    ModelLoaded,
    RequestArrived,
    RequestCancelled,
)
from optimizer.core.job import Job
from optimizer.core.tiers import ModelSpec


class Gateway:
    """Waiting jobs, resident models and slots; a rival says in `_decide` what happens next."""

    def __init__(self, specs: Mapping[str, ModelSpec], usable_mb: float, slots: int) -> None:
        self._specs, self._usable_mb, self._slots = specs, usable_mb, slots
        self._waiting: dict[str, Job] = {}  # in order of arrival
        self._running: dict[str, tuple[str, int]] = {}  # job -> (model, slot)
        self._resident: dict[str, bool] = {}  # model -> loaded; least recently used first
        self._leaving: set[str] = set()
        self._commands: list[Command] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        """The commands that follow from one event."""
        self._commands = []
        match event:
            case RequestArrived(job):
                self._waiting[job.id] = job
            case RequestCancelled(job_id):
                if job_id in self._running:
                    self._commands.append(CancelGeneration(job_id))
                self._drop(job_id)
            case ModelLoaded(model):
                self._resident[model] = True
            case ModelEvicted(model):
                self._leaving.discard(model)
                del self._resident[model]
            case GenerationFinished(job_id) | GenerationCancelled(job_id):
                del self._running[job_id]
            case _:
                pass
        self._decide()
        return self._commands

    def _decide(self) -> None:
        """Start, load and evict as far as possible."""
        raise NotImplementedError

    def _drop(self, job_id: str) -> None:
        self._waiting.pop(job_id, None)

    def _usable(self, model: str) -> bool:
        return self._resident.get(model, False) and model not in self._leaving

    def _busy(self, model: str) -> bool:
        return any(name == model for name, _ in self._running.values())

    def _slot(self, job: Job) -> int | None:
        """A free slot for the job, or None."""
        taken = {slot for _, slot in self._running.values()}
        return next((slot for slot in range(self._slots) if slot not in taken), None)

    def _start(self, job: Job) -> bool:
        slot = self._slot(job)
        if slot is None:
            return False
        self._drop(job.id)
        self._running[job.id] = (job.model, slot)
        self._resident[job.model] = self._resident.pop(job.model)  # most recently used now
        self._commands.append(StartGeneration(job.id, job.model, slot))
        return True

    def _bring_in(self, model: str) -> None:
        """One step towards having `model` loaded: load it, or evict what is idle and in its way."""
        if model in self._resident:
            return  # being loaded, or being evicted
        free_mb = self._usable_mb - sum(self._specs[name].footprint_mb for name in self._resident)
        need_mb = self._specs[model].footprint_mb - free_mb
        if need_mb <= 0:
            self._resident[model] = False
            self._commands.append(LoadModel(model))
            return
        need_mb -= sum(self._specs[name].footprint_mb for name in self._leaving)
        for name in [name for name, loaded in self._resident.items() if loaded and name not in self._leaving]:
            if need_mb > 0 and not self._busy(name):
                self._leaving.add(name)
                need_mb -= self._specs[name].footprint_mb
                self._commands.append(EvictModel(name))


class Fifo(Gateway):
    """One queue, strictly in order of arrival, two slots: the naive gateway."""

    def _head(self) -> Job | None:
        return next(iter(self._waiting.values()), None)

    def _decide(self) -> None:
        while (job := self._head()) is not None:
            if not self._usable(job.model):
                self._bring_in(job.model)
                return
            if not self._start(job):
                return


class Shortest(Fifo):
    """Shortest predicted job first over everything, counting the swap that it would need."""

    def _head(self) -> Job | None:
        return min(self._waiting.values(), key=self._cost_s, default=None)

    def _cost_s(self, job: Job) -> float:
        spec = self._specs[job.model]
        load_s = 0.0 if self._usable(job.model) else spec.load_s
        return load_s + job.prompt_tokens / spec.prefill_tps + job.expected_tokens / spec.decode_tps


class LlamaSwap(Gateway):
    """llama-swap's order (internal/router/scheduler/fifo.go): first in, first out, collated per model.

    A request for a running model that nobody is about to stop is granted at once; any other waits in the queue,
    which is walked in order whenever a model falls idle or a swap ends: what can be granted is, and a swap starts
    as soon as every model it has to stop is idle. No guard against starvation. Runs with `slots_per_model`: a
    granted request goes to the model's own server, which runs two at a time. Its limit of 10 requests per model
    (429 beyond) is taken as lifted, and its groups as set up by what fits side by side.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], usable_mb: float, slots: int) -> None:
        super().__init__(specs, usable_mb, slots)
        self._granted: dict[str, list[Job]] = {}  # model -> jobs at its server that do not run yet
        self._swapping_to: str | None = None

    def _slot(self, job: Job) -> int | None:
        taken = {slot for model, slot in self._running.values() if model == job.model}
        return next((slot for slot in range(self._slots) if slot not in taken), None)

    def _drop(self, job_id: str) -> None:
        super()._drop(job_id)
        for model, jobs in self._granted.items():
            self._granted[model] = [job for job in jobs if job.id != job_id]

    def _busy(self, model: str) -> bool:
        return super()._busy(model) or bool(self._granted.get(model))

    def _decide(self) -> None:
        if self._swapping_to is not None:
            self._bring_in(self._swapping_to)
            if self._usable(self._swapping_to):
                self._swapping_to = None
        for job in list(self._waiting.values()):
            if self._usable(job.model):
                self._granted.setdefault(job.model, []).append(job)
                del self._waiting[job.id]
            elif self._swapping_to is None and self._can_swap(job.model):
                self._swapping_to = job.model
                self._bring_in(job.model)
        for model in self._granted:
            while self._granted[model] and self._start(self._granted[model][0]):
                pass

    def _can_swap(self, model: str) -> bool:
        """Whether what has to be stopped for `model` is idle: the least recently used that make enough room."""
        need_mb = self._specs[model].footprint_mb - self._usable_mb
        need_mb += sum(self._specs[name].footprint_mb for name in self._resident)
        for name in self._resident:
            if need_mb > 0 and not self._busy(name):
                need_mb -= self._specs[name].footprint_mb
        return need_mb <= 0
