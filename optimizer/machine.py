"""The modelled machine: how long loads, prefill and decode take on one small GPU that several runs share.

Rule: pure. Time is an argument, so the virtual-clock simulation and the real-time simulated backend drive the
same object. Rates change only when a run starts, ends its prefill or ends, so the work is integrated exactly
from one change to the next. Must not know: queues, policies, asyncio or any wall clock.

Figures and slow-downs are those of research/scheduling.md; prefill runs at its full rate beside anything else,
and loads neither slow runs nor are slowed by them (the research model says nothing else).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from optimizer.core.errors import LoadFailed
from optimizer.core.tiers import STRATEGY_CATALOGUE, ModelSpec
from optimizer.ports import LoadReport


@dataclass(frozen=True, slots=True)
class MachineModel:
    """A machine's figures: the user's 4 GB card by default. Memory in MB, times in seconds, speeds in tokens/s."""

    usable_mb: float = 3686.0  # 0.9 x 4096
    specs: Mapping[str, ModelSpec] = field(default_factory=lambda: STRATEGY_CATALOGUE.models)
    unload_s: float = 0.7
    same_model_share: float = 0.65  # speed of each of two streams on one model, relative to one alone
    two_models_share: float = 0.55  # speed of each model when two decode at once
    load_scale: float = 1.0  # 0.3 when the model files are in RAM

    def load_s(self, model: str) -> float:
        """Time to load a model, seconds. Raises KeyError for an unknown one."""
        return self.specs[model].load_s * self.load_scale

    def footprint_mb(self, model: str) -> float:
        """Memory the model takes. Raises KeyError for an unknown one."""
        return float(self.specs[model].footprint_mb)

    def decode_share(self, streams: int, models: int) -> float:
        """Speed of one stream relative to running alone, with `streams` on its model and `models` decoding.

        Beyond two the total stays what two reach: 1.3x on one model, 1.1x over models.
        """
        own = 1.0 if streams <= 1 else 2 * self.same_model_share / streams
        others = 1.0 if models <= 1 else 2 * self.two_models_share / models
        return own * others

    def faster(self, speed: float) -> "MachineModel":
        """The same machine with every speed times `speed` and every duration divided by it."""
        specs = {
            name: replace(
                spec,
                load_s=spec.load_s / speed,
                prefill_tps=spec.prefill_tps * speed,
                decode_tps=spec.decode_tps * speed,
            )
            for name, spec in self.specs.items()
        }
        return replace(self, specs=specs, unload_s=self.unload_s / speed)


class ChangeKind(StrEnum):
    PREFILLED = "prefilled"
    FINISHED = "finished"
    LOADED = "loaded"
    EVICTED = "evicted"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened by itself at time `at`; `subject` is a run's id or a model's name."""

    kind: ChangeKind
    subject: str
    at: float


@dataclass(slots=True)
class Run:
    """One generation on the machine. Read it freely; only the Machine writes it."""

    id: str
    model: str
    prompt_tokens: int
    output_tokens: int
    started_at: float
    prefilled_at: float | None = None
    finished_at: float | None = None
    done: float = 0.0  # tokens of the current phase worked off

    @property
    def tokens_out(self) -> int:
        """Tokens decoded up to the machine's time."""
        if self.finished_at is not None:
            return self.output_tokens
        return 0 if self.prefilled_at is None else int(self.done + 1e-9)

    @property
    def left(self) -> float:
        """Tokens left in the current phase."""
        return (self.prompt_tokens if self.prefilled_at is None else self.output_tokens) - self.done


@dataclass(slots=True)
class _Transfer:
    """A load or an eviction under way."""

    kind: ChangeKind
    model: str
    ends_at: float


class Machine:
    """Residents and runs at a time. Times passed in must never go back.

    Every mutator first moves the machine to `now`; what happened on the way is kept for the next `advance`.
    """

    def __init__(self, model: MachineModel, now: float = 0.0) -> None:
        self.model = model
        self.now = now
        self._resident: dict[str, bool] = {}  # model -> loaded (False while its load or eviction is under way)
        self._runs: dict[str, Run] = {}
        self._transfers: list[_Transfer] = []  # in order; each starts when the one before it ends
        self._changes: list[Change] = []

    @property
    def residents(self) -> tuple[str, ...]:
        """Models that are loaded, in order of loading."""
        return tuple(name for name, loaded in self._resident.items() if loaded)

    @property
    def used_mb(self) -> float:
        """Memory taken, including by models that are being loaded or evicted."""
        return sum(self.model.footprint_mb(name) for name in self._resident)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Unfinished runs."""
        return tuple(self._runs.values())

    def holds(self, model: str) -> bool:
        """Whether the model takes memory: loaded, or its load or eviction is under way."""
        return model in self._resident

    def report(self, model: str) -> LoadReport:
        """What a backend would measure of a load of `model`."""
        footprint_mb = self.model.footprint_mb(model)
        return LoadReport(footprint_mb, footprint_mb, self.model.load_s(model))

    def load(self, model: str, now: float) -> float:
        """Begin to load; returns when it will be LOADED. Memory is taken at once.

        Raises LoadFailed when the model is unknown, already in, or does not fit beside what is in.
        """
        self._move(now)
        if model not in self.model.specs:
            raise LoadFailed(f"the simulated machine has no model '{model}'")
        if model in self._resident:
            raise LoadFailed(f"{model} is loaded already")
        free_mb = self.model.usable_mb - self.used_mb
        need_mb = self.model.footprint_mb(model)
        if need_mb > free_mb:
            raise LoadFailed(f"{model} needs {need_mb:.0f} MB and {free_mb:.0f} MB are free")
        self._resident[model] = False
        return self._transfer(ChangeKind.LOADED, model, self.model.load_s(model))

    def evict(self, model: str, now: float) -> float:
        """Begin to evict a loaded model without runs; returns when it will be EVICTED and its memory free."""
        self._move(now)
        if not self._resident.get(model):
            raise ValueError(f"{model} is not loaded")
        if any(run.model == model for run in self._runs.values()):
            raise ValueError(f"{model} has runs")
        self._resident[model] = False
        return self._transfer(ChangeKind.EVICTED, model, self.model.unload_s)

    def start(self, run_id: str, model: str, prompt_tokens: int, output_tokens: int, now: float) -> Run:
        """Begin a run on a loaded model: prefill, then decode. `output_tokens` 0 is an embedding."""
        self._move(now)
        if not self._resident.get(model):
            raise ValueError(f"{model} is not loaded")
        if run_id in self._runs:
            raise ValueError(f"run {run_id} exists")
        run = self._runs[run_id] = Run(run_id, model, prompt_tokens, output_tokens, started_at=now)
        return run

    def stop(self, run_id: str, now: float) -> None:
        """Break a run off; a finished or unknown one is no error."""
        self._move(now)
        self._runs.pop(run_id, None)

    def advance(self, now: float) -> list[Change]:
        """Move to `now` and return everything that happened since the last call, in order of time."""
        self._move(now)
        changes, self._changes = self._changes, []
        return changes

    def next_change(self) -> float | None:
        """When the next change comes if nothing is started or stopped before; None when nothing is under way."""
        if self._changes:
            return self._changes[0].at
        ends = [self.now + run.left / rate for run, rate in self._rates()]
        if self._transfers:
            ends.append(self._transfers[0].ends_at)
        return min(ends, default=None)

    def _transfer(self, kind: ChangeKind, model: str, duration_s: float) -> float:
        begins_at = self._transfers[-1].ends_at if self._transfers else self.now
        self._transfers.append(_Transfer(kind, model, begins_at + duration_s))
        return begins_at + duration_s

    def _rates(self) -> list[tuple[Run, float]]:
        streams = Counter(run.model for run in self._runs.values() if run.prefilled_at is not None)
        rates = []
        for run in self._runs.values():
            spec = self.model.specs[run.model]
            if run.prefilled_at is None:
                rates.append((run, spec.prefill_tps))
            else:
                rates.append((run, spec.decode_tps * self.model.decode_share(streams[run.model], len(streams))))
        return rates

    def _move(self, now: float) -> None:
        """Integrate up to `now`, one change at a time."""
        if now < self.now:
            raise ValueError(f"time went back from {self.now} to {now}")
        while True:
            rates = self._rates()
            ends = [self.now + run.left / rate for run, rate in rates]
            transfer_ends = self._transfers[0].ends_at if self._transfers else float("inf")
            first = min(min(ends, default=float("inf")), transfer_ends)
            if first > now:
                break
            for (run, rate), ends_at in zip(rates, ends, strict=True):
                if ends_at == first:
                    self._end_phase(run, first)
                else:
                    run.done += (first - self.now) * rate
            if transfer_ends == first:
                self._end_transfer(self._transfers.pop(0))
            self.now = first
        for run, rate in rates:
            run.done += (now - self.now) * rate
        self.now = now

    def _end_phase(self, run: Run, at: float) -> None:
        run.done = 0.0
        if run.prefilled_at is None:
            run.prefilled_at = at
            self._changes.append(Change(ChangeKind.PREFILLED, run.id, at))
        else:
            run.finished_at = at
            del self._runs[run.id]
            self._changes.append(Change(ChangeKind.FINISHED, run.id, at))

    def _end_transfer(self, transfer: _Transfer) -> None:
        if transfer.kind is ChangeKind.LOADED:
            self._resident[transfer.model] = True
        else:
            del self._resident[transfer.model]
        self._changes.append(Change(transfer.kind, transfer.model, transfer.ends_at))
