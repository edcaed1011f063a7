"""The simulated backend: the user's 4 GB card, in real time, up to many times faster. No model runs.

Rule: it does what it is told on a modelled `Machine` and never evicts by itself; its answers are labelled
(`simulated`, and in the text). Durations that it reports have really passed: the modelled ones divided by `speed`.
Must not know: queues or policies.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from optimizer.backends import simulated_text
from optimizer.core.errors import (
    BackendUnavailable,
    GenerationFailed,
    LoadFailed,
    ModelFileMissing,
    UnsupportedFeature,
)
from optimizer.core.events import Resident
from optimizer.core.tiers import ModelSpec
from optimizer.machine import Machine, MachineModel, Run
from optimizer.ports import Call, Delta, Embedded, Finished, LoadReport, ModelInfo

_TICK_S = 0.02  # the longest a run goes unobserved; tokens that came meanwhile make one delta


class SimulatedBackend:
    """A `Backend` on a modelled machine.

    `wedge`, `die` and `fail_next_load` break it as real backends break; `recover` repairs it, with empty memory.
    """

    name = "simulated"
    simulated = True

    def __init__(
        self, machine: MachineModel | None = None, *, speed: float = 1.0, probe_timeout_s: float = 3.0
    ) -> None:
        """`speed` 20 makes everything twenty times faster than the machine. Raises ValueError unless above 0."""
        if speed <= 0:
            raise ValueError("speed must be above 0")
        self._model = (machine or MachineModel()).faster(speed)
        self._machine = Machine(self._model, time.monotonic())
        self._probe_timeout_s = probe_timeout_s
        self._ids = itertools.count()
        self._life = 0  # counts restarts: what began in an earlier life is gone
        self._dead = False
        self._progress = asyncio.Event()  # cleared while wedged
        self._progress.set()
        self._next_load_fails = ""

    async def start(self) -> None:
        self._answer()

    async def models(self) -> Sequence[ModelInfo]:
        self._answer()
        return [_info(spec) for spec in self._model.specs.values()]

    async def residents(self) -> Sequence[Resident]:
        self._answer()
        self._machine.advance(time.monotonic())
        sizes = [(name, self._model.footprint_mb(name)) for name in self._machine.residents]
        return [Resident(name, size_mb, size_mb) for name, size_mb in sizes]

    async def load(self, spec: ModelSpec) -> LoadReport:
        self._answer()
        began_at, life, name = time.monotonic(), self._life, spec.name
        if name not in self._model.specs:
            raise ModelFileMissing(f"the simulated machine has no model '{name}'")
        if reason := self._next_load_fails:
            self._next_load_fails = ""
            raise LoadFailed(reason)
        if not self._machine.holds(name):
            self._machine.load(name, began_at)
        while name not in self._machine.residents:
            await self._wait(life, LoadFailed)
            if not self._machine.holds(name):
                raise LoadFailed(f"{name} was evicted while it was being loaded")
        size_mb = self._model.footprint_mb(name)
        return LoadReport(size_mb, size_mb, time.monotonic() - began_at)

    async def evict(self, model: str) -> None:
        """An eviction waits for the model's load and runs to end, as Ollama's does."""
        self._answer()
        life = self._life
        asked = False
        while self._machine.holds(model):
            busy = any(run.model == model for run in self._machine.runs)
            if not asked and not busy and model in self._machine.residents:
                self._machine.evict(model, time.monotonic())
                asked = True
            await self._wait(life, BackendUnavailable)

    async def generate(self, call: Call) -> AsyncGenerator[Delta | Finished, None]:
        life = self._life
        spec = self._loaded(call.model)
        tokens = simulated_text.answer(call, spec.tier)
        limit = int(call.options.get("num_predict", -1))
        cut = 0 < limit < len(tokens)
        if cut:
            tokens = tokens[:limit]
        prompt_tokens = simulated_text.prompt_tokens([m.content for m in call.messages])
        run = self._run(call.model, prompt_tokens, len(tokens))
        sent = 0
        try:
            while sent < len(tokens) or run.finished_at is None:
                await self._wait(life, GenerationFailed)
                if (out := run.tokens_out) > sent:
                    yield Delta(text="".join(tokens[sent:out]))
                    sent = out
        finally:
            self._stop(run, life)
        prefill_s, decode_s = _durations(run)
        yield Finished("length" if cut else "stop", prompt_tokens, len(tokens), prefill_s, decode_s)

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any]) -> Embedded:
        life = self._life
        if not self._loaded(model).embeds:
            raise UnsupportedFeature(f"{model} does not embed", param="model")
        tokens = simulated_text.prompt_tokens(inputs)
        run = self._run(model, tokens, 0)
        try:
            while run.finished_at is None:
                await self._wait(life, GenerationFailed)
        finally:
            self._stop(run, life)
        return Embedded(tuple(simulated_text.vector(text) for text in inputs), tokens)

    async def probe(self, model: str | None) -> None:
        self._answer()
        self._machine.advance(time.monotonic())
        if model is None or model not in self._machine.residents:
            return
        life = self._life
        run = self._run(model, 1, 1)
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                while run.finished_at is None:
                    await self._wait(life, BackendUnavailable)
        except TimeoutError:
            raise BackendUnavailable(f"the simulated backend gave no token in {self._probe_timeout_s:g} s") from None
        finally:
            self._stop(run, life)

    async def recover(self) -> None:
        """Restart if it is broken: memory is empty then and what was running fails. No effect otherwise."""
        if self._dead or not self._progress.is_set():
            self._restart()

    async def close(self) -> None:
        self._restart()

    # --- faults -------------------------------------------------------------------------------

    def wedge(self) -> None:
        """From now on it answers, and nothing progresses: no token, no load."""
        self._progress.clear()

    def die(self) -> None:
        """From now on nothing answers; runs and loads break off and memory is lost."""
        self._restart()
        self._dead = True

    def fail_next_load(self, reason: str = "injected load failure") -> None:
        self._next_load_fails = reason

    # --- inside -------------------------------------------------------------------------------

    def _answer(self) -> None:
        if self._dead:
            raise BackendUnavailable("the simulated backend is dead")

    def _restart(self) -> None:
        self._life += 1
        self._dead = False
        self._progress.set()
        self._machine = Machine(self._model, time.monotonic())

    def _loaded(self, model: str) -> ModelSpec:
        self._answer()
        self._machine.advance(time.monotonic())
        if model not in self._model.specs:
            raise ModelFileMissing(f"the simulated machine has no model '{model}'")
        if model not in self._machine.residents:
            raise GenerationFailed(f"{model} is not loaded")
        return self._model.specs[model]

    def _run(self, model: str, prompt_tokens: int, output_tokens: int) -> Run:
        return self._machine.start(str(next(self._ids)), model, prompt_tokens, output_tokens, time.monotonic())

    def _stop(self, run: Run, life: int) -> None:
        if life == self._life:
            self._machine.stop(run.id, time.monotonic())

    async def _wait(self, life: int, broken: type[Exception]) -> None:
        """Sleep to the machine's next change or one tick; for ever if wedged. Raises `broken` if this life is over."""
        now = time.monotonic()
        next_change = self._machine.next_change() or now + _TICK_S
        await asyncio.sleep(min(_TICK_S, max(0.0, next_change - now)))
        await self._progress.wait()
        if life != self._life:
            raise broken("the simulated backend went away")
        self._machine.advance(time.monotonic())


def _info(spec: ModelSpec) -> ModelInfo:
    able = {
        "completion": True,
        "tools": spec.supports_tools,
        "thinking": spec.supports_thinking,
        "vision": spec.supports_images,
        "embedding": spec.embeds,
    }
    return ModelInfo(
        name=spec.name,
        size_mb=float(spec.footprint_mb),
        family="simulated",
        context_length=spec.context_window,
        capabilities=tuple(name for name, has in able.items() if has),
    )


def _durations(run: Run) -> tuple[float, float]:
    """Prefill and decode of a finished run, seconds."""
    if run.prefilled_at is None or run.finished_at is None:
        raise AssertionError("the run has not finished")
    return run.prefilled_at - run.started_at, run.finished_at - run.prefilled_at
