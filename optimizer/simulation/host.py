"""One host of the simulation: a modelled machine with its slots, and what was done on it.

Rule: it carries commands out and breaks off at the first one that is impossible: VRAM or slots exceeded, a model
used that is not loaded. Must not know: requests beside their runs, the policy, or other hosts.
"""

from optimizer.core.errors import LoadFailed
from optimizer.machine import Machine, MachineModel, Run
from optimizer.simulation.history import EMPTY, FULL, HELD, PARTIAL, SWAPPING, Stay


class Impossible(AssertionError):
    """The policy commanded what no machine can do, or left a request without an end: a bug in it."""


class Host:
    """A machine, its slots, the models' stays and the GPU's time."""

    def __init__(self, machine: MachineModel, slots: int, slots_per_model: bool = False) -> None:
        """`slots` bounds the runs on the host, or on each model when `slots_per_model`."""
        self.machine = Machine(machine)
        self.runs: dict[str, Run] = {}
        self.wake_at: float | None = None
        self.stays: list[Stay] = []
        self.gpu_s = dict.fromkeys((FULL, PARTIAL, SWAPPING, HELD, EMPTY), 0.0)
        self.loads = self.evictions = 0
        self._slots, self._slots_per_model = slots, slots_per_model
        self._taken: dict[tuple[str, int], str] = {}
        self._moving = 0  # loads and evictions under way
        self._staying: dict[str, list[float]] = {}

    def next_at(self) -> float | None:
        """When something happens here by itself at the earliest."""
        return min((at for at in (self.machine.next_change(), self.wake_at) if at is not None), default=None)

    def pass_time(self, seconds: float, awaited: bool) -> None:
        """Book the time since the last change; `awaited`: somebody has not been answered yet."""
        running = len(self.machine.runs)
        if running:
            use = FULL if running >= self._slots else PARTIAL
        elif self._moving:
            use = SWAPPING
        else:
            use = HELD if awaited else EMPTY
        self.gpu_s[use] += seconds

    def start(self, job_id: str, model: str, slot: int, prompt_tokens: int, output_tokens: int, now: float) -> None:
        place = (model if self._slots_per_model else "", slot)
        if not 0 <= slot < self._slots or place in self._taken:
            raise Impossible(f"slot {slot} does not exist or is taken ({len(self._taken)} taken)")
        if model not in self.machine.residents:
            raise Impossible(f"{job_id} was started on {model}, which is not loaded")
        self._taken[place] = job_id
        self.runs[job_id] = self.machine.start(job_id, model, prompt_tokens, output_tokens, now)

    def cancel(self, job_id: str, now: float) -> bool:
        """Break a run off; False when its end is on the way already."""
        if not any(run.id == job_id for run in self.machine.runs):
            return False
        self.machine.stop(job_id, now)
        self.free(job_id)
        return True

    def free(self, job_id: str) -> Run:
        """A run is over: its slot is free."""
        place = next(place for place, owner in self._taken.items() if owner == job_id)
        del self._taken[place]
        return self.runs.pop(job_id)

    def load(self, model: str, now: float) -> None:
        try:
            self.machine.load(model, now)
        except LoadFailed as error:
            raise Impossible(f"load at {now:.3f}: {error}") from None
        self._moving += 1
        self.loads += 1
        self._staying[model] = [now]

    def loaded(self, model: str, now: float) -> None:
        self._moving -= 1
        self._staying[model].append(now)

    def evict(self, model: str, now: float) -> None:
        try:
            self.machine.evict(model, now)
        except ValueError as error:
            raise Impossible(f"eviction at {now:.3f}: {error}") from None
        self._moving += 1
        self.evictions += 1
        self._staying[model].append(now)

    def evicted(self, model: str, now: float) -> None:
        self._moving -= 1
        self._end_stay(model, now)

    def close(self, now: float) -> None:
        """The clock stops: every stay ends."""
        for model in list(self._staying):
            self._end_stay(model, now)

    def _end_stay(self, model: str, now: float) -> None:
        """What has not come yet is dated now."""
        load_began, loaded_at, evict_began = [*self._staying.pop(model), now, now][:3]
        self.stays.append(Stay(model, load_began, loaded_at, evict_began, gone_at=now))
