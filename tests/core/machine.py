"""A tiny machine for the scheduler's tests: it carries out commands on a virtual clock and checks every promise.

Loads, evictions and runs take fixed times. Faults are scripted by the test: `fail_loads`, `fail_runs`.
It measures memory independently of the ledger, so that an over-full card is caught here.
"""

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

from optimizer.core import commands as cmd
from optimizer.core import events as ev
from optimizer.core.job import Job
from optimizer.core.policy import Rule
from optimizer.core.request import Priority
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
TARGETS = {TINY: 5.0, QWEN: 30.0, DEEPSEEK: 90.0}
EVICT_S = 0.7


def job(id: str, model: str = TINY, agent: str = "", tokens: int = 60, **more: object) -> Job:
    fields = {"priority": Priority.AGENT, "target_s": TARGETS.get(model, 5.0)} | more
    return Job(id, agent or f"agent-{id}", model, prompt_tokens=30, expected_tokens=tokens, **fields)  # type: ignore[arg-type]


def arrived(*args: object, **more: object) -> ev.RequestArrived:
    return ev.RequestArrived(job(*args, **more))  # type: ignore[arg-type]


@dataclass
class Machine:
    """Drives a scheduler; `ends` maps each job id to how it ended."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    catalogue: Catalogue = STRATEGY_CATALOGUE
    size_mb: dict[str, float] = field(default_factory=dict)  # what a model really takes, if not as declared
    fail_loads: set[int] = field(default_factory=set)  # ordinal numbers of loads that fail
    fail_runs: dict[int, bool] = field(default_factory=dict)  # ordinal of a run -> retry

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.thresholds, self.catalogue)
        self.now = 0.0
        self.log: list[tuple[float, ev.Event]] = []
        self.commands: list[list[cmd.Command]] = []
        self.ends: dict[str, str] = {}
        self.started_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        self.loaded: set[str] = set()
        self.in_vram: set[str] = set()  # loading and evicting included
        self.running: dict[str, tuple[int, str]] = {}
        self.jobs: dict[str, Job] = {}
        self.counts: Counter[str] = Counter()
        self.wake: float | None = None
        self.loaded_at: dict[str, float] = {}
        self.busy_swaps_apart = float("inf")  # shortest visit that rule B or urgency ended
        self._loops: dict[str, Job] = {}  # closed loops: each end brings the next request
        self._future: list[tuple[float, int, ev.Event]] = []
        self._tick = itertools.count()
        self._epoch = 0

    def mb(self, model: str) -> float:
        return self.size_mb.get(model, float(self.catalogue.models[model].footprint_mb))

    def send(self, event: ev.Event) -> list[cmd.Command]:
        """Hand an event over now, carry out the answer, check the promises."""
        if isinstance(event, ev.RequestArrived):
            self.jobs[event.job.id] = event.job
            self.arrived_at[event.job.id] = self.now
        self.log.append((self.now, event))
        self.wake = None
        commands = self.scheduler.handle(event, self.now)
        self.commands.append(commands)
        for command in commands:
            self._carry_out(command)
        self.scheduler.invariants()
        self._check_work_conserving()
        return commands

    def residents(self) -> tuple[ev.Resident, ...]:
        return tuple(ev.Resident(model, self.mb(model), self.mb(model)) for model in sorted(self.loaded))

    def closed_loop(self, models: list[str], tokens: int, priority: Priority = Priority.AGENT) -> None:
        """One agent per model named, who asks again the moment it is answered."""
        for number, model in enumerate(models):
            first = job(f"loop-{number}-0", model, agent=f"loop-{number}", tokens=tokens, priority=priority)
            self._loops[first.agent] = first
            self.send(ev.RequestArrived(first))

    def at(self, delay: float, event: ev.Event) -> None:
        heapq.heappush(self._future, (self.now + delay, next(self._tick), event))

    def run_until(self, end: float) -> None:
        """Let time pass to `end`."""
        while True:
            due = self._future[0][0] if self._future else float("inf")
            wake = self.wake if self.wake is not None else float("inf")
            if min(due, wake) > end:
                break
            if wake < due:
                self.now = max(self.now, wake)
                self.send(ev.TimerFired())
                continue
            self.now, _, event = heapq.heappop(self._future)
            self._happen(event)
        self.now = end

    def run_dry(self, limit: float = 1e6) -> None:
        """Until nothing waits and nothing runs, at most `limit` seconds."""
        end = self.now + limit
        while (len(self.ends) < len(self.jobs)) and (self._future or self.wake is not None):
            due = min(self._future[0][0] if self._future else end, self.wake if self.wake is not None else end)
            assert due <= end, "not dry in time"
            self.run_until(due)
        assert len(self.ends) == len(self.jobs), set(self.jobs) - set(self.ends)

    def lose_backend(self) -> None:
        self._epoch += 1
        self._future = [
            item
            for item in self._future
            if isinstance(item[2], ev.RequestArrived | ev.RequestCancelled | ev.BackendRecovered)
        ]
        heapq.heapify(self._future)
        self.loaded.clear()
        self.in_vram.clear()
        lost, self.running = set(self.running), {}
        self.send(ev.BackendLost("killed"))
        for job_id in sorted(lost):
            if job_id not in self.scheduler._state.entries and job_id not in self.running:
                self.ends.setdefault(job_id, "cancelled")

    def _happen(self, event: ev.Event) -> None:
        match event:
            case ev.ModelLoaded(model):
                self.loaded.add(model)
                self.loaded_at[model] = self.now
            case ev.ModelLoadFailed(model) | ev.ModelEvicted(model):
                self.in_vram.discard(model)
            case ev.GenerationFinished(job_id):
                if job_id not in self.running:
                    return  # it was cancelled meanwhile
                del self.running[job_id]
                self._end(job_id, "finished")
            case ev.GenerationFailed(job_id):
                if self.running.pop(job_id, None) is None:
                    return
            case ev.PrefillFinished(job_id):
                if job_id not in self.running:
                    return
            case ev.GenerationCancelled(job_id):
                self._end(job_id, "cancelled")
            case ev.BackendRecovered():
                event = ev.BackendRecovered(self.residents())
            case ev.RequestCancelled(job_id):
                if job_id in self.scheduler._state.entries:
                    self._end(job_id, "cancelled")
        self.send(event)
        if isinstance(event, ev.GenerationFinished):
            self._ask_again(self.jobs[event.job_id])

    def _ask_again(self, ended: Job) -> None:
        if ended.agent in self._loops:
            loop, _, number = ended.id.rpartition("-")
            self.send(ev.RequestArrived(replace(ended, id=f"{loop}-{int(number) + 1}")))

    def _end(self, job_id: str, how: str) -> None:
        assert job_id not in self.ends, f"{job_id} ended twice"
        self.ends[job_id] = how

    def _carry_out(self, command: cmd.Command) -> None:
        self.counts[type(command).__name__] += 1
        match command:
            case cmd.LoadModel(model):
                assert model not in self.in_vram
                self.in_vram.add(model)
                used = sum(self.mb(m) for m in self.in_vram)
                assert len(self.in_vram) == 1 or self.size_mb or used <= self.scheduler._state.thresholds.usable_mb
                load_s = self.catalogue.models[model].load_s
                if self.counts["LoadModel"] in self.fail_loads:
                    self.at(load_s, ev.ModelLoadFailed(model, "out of memory"))
                else:
                    self.at(load_s, ev.ModelLoaded(model, self.mb(model), self.mb(model), load_s))
            case cmd.EvictModel(model):
                assert model in self.loaded
                assert not any(m == model for _, m in self.running.values()), "evicted under a running request"
                self.loaded.discard(model)
                swap = self.scheduler._state.swap
                if swap and swap.rule in (Rule.STAYED, Rule.URGENT):
                    visit = max(self.now - self.loaded_at[name] for name in swap.leaving)
                    self.busy_swaps_apart = min(self.busy_swaps_apart, visit)
                self.at(EVICT_S, ev.ModelEvicted(model))
            case cmd.StartGeneration(job_id, model, slot):
                assert model in self.loaded and self.jobs[job_id].model == model
                assert slot not in {s for s, _ in self.running.values()}
                assert len(self.running) < self.scheduler._state.thresholds.slots
                self.running[job_id] = slot, model
                self.started_at.setdefault(job_id, self.now)
                run_s = self.jobs[job_id].expected_tokens / self.catalogue.models[model].decode_tps
                if self.counts["StartGeneration"] in self.fail_runs:
                    retry = self.fail_runs[self.counts["StartGeneration"]]
                    self.at(run_s / 2, ev.GenerationFailed(job_id, "broke off", retry))
                else:
                    self.at(run_s / 4, ev.PrefillFinished(job_id))
                    self.at(
                        run_s, ev.GenerationFinished(job_id, 30, self.jobs[job_id].expected_tokens, run_s / 4, run_s)
                    )
            case cmd.CancelGeneration(job_id):
                del self.running[job_id]
                self.at(0.01, ev.GenerationCancelled(job_id))
            case cmd.Reject(job_id, _, retry_after_s):
                assert 0 < retry_after_s < 1e7
                self._end(job_id, "rejected")
            case cmd.Fail(job_id):
                self.running.pop(job_id, None)
                self._end(job_id, "failed")
            case cmd.WakeAt(at):
                assert at > self.now
                self.wake = at

    def _check_work_conserving(self) -> None:
        """Both slots are busy whenever somebody waits whose model is loaded and not about to leave."""
        st = self.scheduler._state
        if st.lost or len(st.running) >= st.thresholds.slots:
            return
        for name in st.ledger.loaded():
            assert st.draining(name) or not len(st.model(name).queue), f"a slot idles while {name} is waited for"
