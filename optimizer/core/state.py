"""What the scheduler knows at one moment, and the checks that it is consistent.

Rule: only scheduler.py changes it; forecast.py and admission.py read it. `invariants` is the list of
promises that must hold after every event. Must not know: events or commands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from optimizer.core.policy import Rule, Standing
from optimizer.core.prediction import Estimates
from optimizer.core.promises import Promises
from optimizer.core.queues import Entry, ModelQueue
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue, Residency
from optimizer.core.vram import Ledger, Place


@dataclass(slots=True)
class ModelState:
    """One model: its queue and the present or last visit to VRAM."""

    name: str
    queue: ModelQueue
    running: int = 0
    loaded_at: float = 0.0
    idle_since: float = 0.0  # end of its last run
    gate: set[str] = field(default_factory=set)  # job ids of the gate not yet started; membership only
    served: bool = False  # in this visit the one that had waited longest was started
    served_s: float = 0.0  # predicted seconds it was given on the slots, in the virtual time of `State.served_s`
    passed: int = 0  # swaps made for others while somebody waited here
    failures: int = 0  # loads failed in a row
    retry_at: float = 0.0  # no load before this
    load_error: str = ""


@dataclass(slots=True)
class Running:
    """One request on a slot."""

    entry: Entry
    slot: int
    started: float
    ends: float  # predicted
    prefilled_at: float | None = None  # the first token came
    cancelled: bool = False  # asked to stop; the slot is still taken


@dataclass(slots=True)
class Swap:
    """A decided change of models: drain, then evict, then load. One at a time."""

    target: str | None  # None: only evict
    leaving: tuple[str, ...]
    rule: Rule
    begun: float
    drained_by: float  # predicted; set once, so that filling a drain cannot prolong it
    evicting: bool = False


@dataclass(slots=True)
class Slot:
    """One of the parallel runs; remembers what its KV cache holds."""

    job_id: str = ""  # "" = free
    model: str = ""
    prefix: str = ""
    used_at: float = 0.0


@dataclass(slots=True)
class Counters:
    """Totals since the start of the process."""

    arrived: int = 0
    finished: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    starts: int = 0
    requeues: int = 0
    swaps: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    taken_over: int = 0  # from other nodes
    given_away: int = 0  # to other nodes

    @property
    def ended(self) -> int:
        return self.finished + self.rejected + self.failed + self.cancelled


class State:
    """All of it. Dictionaries keep insertion order: nothing is iterated in hash order."""

    def __init__(self, thresholds: Thresholds, catalogue: Catalogue) -> None:
        self.thresholds = thresholds
        self.catalogue = catalogue
        self.ledger = Ledger(thresholds.usable_mb, catalogue)
        self.estimates = Estimates(catalogue)
        self.models = {name: ModelState(name, ModelQueue(thresholds.order)) for name in catalogue.models}
        self.entries: dict[str, Entry] = {}  # waiting, by job id
        self.running: dict[str, Running] = {}  # by job id
        self.slots = [Slot() for _ in range(thresholds.slots)]
        self.waiting_of_agent: dict[str, int] = {}
        self.paused_agents: set[str] = set()  # membership only
        self.pinned: set[str] = set()  # membership only
        self.put_out: set[str] = set()  # by an operator: not brought back unless asked for; membership only
        self.wanted: dict[str, None] = {}  # operator loads to do, in order
        self.unwanted: dict[str, None] = {}  # operator evictions to do, in order
        self.swap: Swap | None = None
        self.loading: str | None = None
        self.since: dict[str, float] = {}  # model -> when its load or eviction was commanded
        self.intake_paused = False
        self.drained = False  # for maintenance
        self.served_s = 0.0  # virtual time of the loaded models' shares: as far as the last started one had come
        self.lost = ""  # why the backend is unusable; "" = it works
        self.promises = Promises()  # places in the queue, made when it was full
        self.counters = Counters()

    def model(self, name: str) -> ModelState:
        """The state of a model; one that nobody declared (a foreign resident) gets an empty one."""
        if name not in self.models:
            self.models[name] = ModelState(name, ModelQueue(self.thresholds.order))
        return self.models[name]

    def residency(self, model: str) -> Residency:
        spec = self.catalogue.models.get(model)
        return spec.residency if spec else Residency.ON_DEMAND

    def standing(self, name: str, now: float) -> Standing:
        """One model as the policy sees it."""
        state = self.model(name)
        oldest = state.queue.oldest()
        return Standing(
            model=name,
            waiting=len(state.queue),
            running=state.running,
            oldest_age_s=now - oldest.arrived if oldest else 0.0,
            overdue=oldest.overdue(now) if oldest else 0.0,
            in_place_s=now - state.loaded_at if self.ledger.is_loaded(name) else 0.0,
            gate=len(state.gate),
            served=state.served or not state.queue,
            passed=state.passed,
            load_s=self.estimates.load_s(name),
            evict_s=self.estimates.evict_s(name),
            claim=state.queue.claim,
            work_s=state.queue.work_s / self.thresholds.slots,
            residency=self.residency(name),
        )

    def evictable(self, now: float) -> list[Standing]:
        """Loaded models that may be pushed out."""
        return [self.standing(name, now) for name in self.ledger.loaded() if name not in self.pinned]

    def beside(self, newcomer: Standing, leaving: Sequence[str], candidates: Sequence[Standing]) -> list[Standing]:
        """Those of `candidates` that would fit in with `newcomer` once `leaving` are gone."""
        there = [*(name for name in self.ledger.places if name not in leaving), newcomer.model]
        return [c for c in candidates if c.model != newcomer.model and self.ledger.fits([*there, c.model])]

    def draining(self, model: str) -> bool:
        """It is about to leave: nothing long may start on it."""
        return self.swap is not None and model in self.swap.leaving

    def busy_until(self, models: tuple[str, ...], now: float) -> float:
        """When the last of the requests running on `models` is predicted to end."""
        return max((r.ends for r in self.running.values() if r.entry.job.model in models), default=now)

    def invariants(self) -> None:
        """Raise AssertionError unless every promise holds. For tests; O(everything)."""
        waiting = [entry for state in self.models.values() for entry in state.queue]
        c = self.counters
        here = c.arrived + c.taken_over - c.given_away
        assert here == c.ended + len(waiting) + len(self.running), "a request was lost or ended twice"
        assert {e.job.id for e in waiting} == set(self.entries), "queues and index disagree"
        assert len(waiting) == len(self.entries) == sum(len(s.queue) for s in self.models.values())
        assert not set(self.entries) & set(self.running), "a request both waits and runs"
        taken = [slot.job_id for slot in self.slots if slot.job_id]
        assert sorted(taken) == sorted(self.running), "slots and runs disagree"
        for name, state in self.models.items():
            assert state.running == sum(r.entry.job.model == name for r in self.running.values())
            assert state.gate <= {entry.job.id for entry in state.queue}, "the gate waits for somebody who does not"
            assert abs(state.queue.work_s - sum(e.cost_s for e in state.queue)) < 1e-3 * (1 + state.queue.work_s)
        per_agent: dict[str, int] = {}
        for entry in waiting:
            per_agent[entry.job.agent] = per_agent.get(entry.job.agent, 0) + 1
        assert per_agent == self.waiting_of_agent, "admission counts disagree"
        loading = [name for name, place in self.ledger.places.items() if place is Place.LOADING]
        assert loading == ([self.loading] if self.loading else []), "more than one load at a time"
