"""The world a policy lives in: a virtual clock, modelled hosts, and clients that come, wait and leave.

Rule: any object with `handle(event, now) -> commands` runs here, the production scheduler and its rivals alike, and
the production fleet on several hosts. The world carries the commands out and breaks off at the first one that is
impossible (host.py), or when a request ends twice or never. Must not know: how a policy decides.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from optimizer.core.commands import (
    CancelGeneration,
    Command,
    EvictModel,
    Fail,
    LoadModel,
    Reject,
    StartGeneration,
    WakeAt,
)
from optimizer.core.events import (
    Event,
    GenerationCancelled,
    GenerationFinished,
    ModelEvicted,
    ModelLoaded,
    PrefillFinished,
    RequestArrived,
    RequestCancelled,
    TimerFired,
)
from optimizer.core.job import Job
from optimizer.core.lengths import Lengths
from optimizer.core.tiers import Catalogue
from optimizer.machine import Change, ChangeKind, MachineModel
from optimizer.simulation.answers import Answers
from optimizer.simulation.history import Ending, History, Outcome
from optimizer.simulation.host import Host, Impossible
from optimizer.simulation.workload import Arrival, Traffic

IDLE_TIMERS = 1000  # wake-ups at one moment before the policy counts as stuck


class Policy(Protocol):
    """The scheduler's interface; see optimizer.core.scheduler."""

    def handle(self, event: Event, now: float) -> Iterable[Command]: ...


class FleetPolicy(Protocol):
    """The fleet's interface; see optimizer.core.fleet."""

    def handle(self, event: Event, now: float, node: str = "") -> Iterable[tuple[str, Command]]: ...


class _Alone:
    """A policy of one node, seen as a fleet."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def handle(self, event: Event, now: float, node: str = "") -> Iterable[tuple[str, Command]]:
        return [("", command) for command in self._policy.handle(event, now)]


@dataclass(slots=True)
class _Open:
    """A job that has not ended, and the requests that share it."""

    job: Job
    arrival: Arrival
    members: list[Outcome]
    started: bool = False


@dataclass(order=True, slots=True)
class _Due:
    at: float
    order: int
    what: "Arrival | Outcome" = field(compare=False)


class World:
    """One run of one policy. Use `run()` once."""

    def __init__(
        self,
        policy: Policy | FleetPolicy,
        traffic: Traffic,
        machine: MachineModel,
        catalogue: Catalogue,
        slots: int = 2,
        slots_per_model: bool = False,
        coalesce: bool = False,
        answers: Answers | None = None,
        nodes: Sequence[str] = (),
    ) -> None:
        """`slots` bounds the runs on a node, or on each model when `slots_per_model`. `answers` is the cache.

        With `nodes`, the policy is a fleet's, and each of them is such a machine.
        """
        self._policy: FleetPolicy = policy if nodes else _Alone(policy)  # type: ignore[assignment, arg-type]
        self._traffic, self._catalogue, self._coalesce = traffic, catalogue, coalesce
        self._hosts = {name: Host(machine, slots, slots_per_model) for name in nodes or ("",)}
        self.now = 0.0
        self._due: list[_Due] = []
        self._order = count()
        self._wakes_here = 0
        self._coming = 0  # arrivals still due
        self._open: dict[str, _Open] = {}
        self._job_of: dict[int, str] = {}  # id(outcome) -> job
        self._shared: dict[tuple[str, str], str] = {}  # (model, key) -> job
        self._answers = answers or Answers(0.0, 0)
        self._lengths = Lengths()
        for agent, model, tokens in traffic.past():
            self._lengths.observe(agent, model, catalogue.models[model].tier, tokens)
        self._outcomes: list[Outcome] = []

    def run(self) -> History:
        """Run to the end. Raises Impossible at the policy's first impossible command."""
        for arrival in self._traffic.first():
            self._push(arrival.at_s, arrival)
        while True:
            at = self._next() if self._work_left() else None
            if at is None or at > self._traffic.stop_s:
                break
            self._pass_time(at)
            for node, host in self._hosts.items():
                for change in host.machine.advance(at):
                    self._changed(change, node)
            while self._due and self._due[0].at <= at:
                self._happen(heapq.heappop(self._due).what)
            for node, host in self._hosts.items():
                if host.wake_at is not None and host.wake_at <= at:
                    self._wake(node)
        if self._traffic.stop_s < math.inf:
            self._pass_time(self._traffic.stop_s)
        return self._balance()

    # --- time ---

    def _work_left(self) -> bool:
        return bool(self._open) or self._coming > 0 or self._traffic.stop_s < math.inf

    def _next(self) -> float | None:
        times = [at for host in self._hosts.values() if (at := host.next_at()) is not None]
        if self._due:
            times.append(self._due[0].at)
        if times:
            return max(min(times), self.now)
        if self._open and self._traffic.stop_s == math.inf:
            raise Impossible(f"{len(self._open)} requests wait and the policy does nothing")
        return None

    def _pass_time(self, at: float) -> None:
        for host in self._hosts.values():
            host.pass_time(at - self.now, awaited=bool(self._open))
        if at > self.now:
            self._wakes_here = 0
        self.now = at

    def _push(self, at: float, what: "Arrival | Outcome") -> None:
        self._coming += isinstance(what, Arrival)
        heapq.heappush(self._due, _Due(at, next(self._order), what))

    def _wake(self, node: str) -> None:
        self._hosts[node].wake_at = None
        self._wakes_here += 1
        if self._wakes_here > IDLE_TIMERS:
            raise Impossible(f"the policy wakes itself up for ever at {self.now}")
        self._tell(TimerFired(), node)

    # --- what happens outside the policy ---

    def _happen(self, what: "Arrival | Outcome") -> None:
        if isinstance(what, Arrival):
            self._arrive(what)
        elif not what.ended:
            self._give_up(what)

    def _arrive(self, arrival: Arrival) -> None:
        self._coming -= 1
        tier = self._catalogue.tier_of(arrival.model)
        outcome = Outcome(arrival.agent, arrival.model, self.now, tier.target_s, arrival.output_tokens)
        self._outcomes.append(outcome)
        if arrival.patience_s is not None:
            self._push(self.now + arrival.patience_s, outcome)
        if self._answers.has(arrival.model, arrival.key, self.now):
            outcome.started_at = self.now
            self._end(outcome, Ending.ANSWERED)
            return
        shared = self._shared.get((arrival.model, arrival.key)) if arrival.key and self._coalesce else None
        if shared is not None:
            leader = self._open[shared]
            leader.members.append(outcome)
            outcome.started_at = self.now if leader.started else None
            self._job_of[id(outcome)] = shared
            return
        spec = self._catalogue.models[arrival.model]
        job = Job(
            id=f"r{len(self._outcomes)}",
            agent=arrival.agent,
            model=arrival.model,
            prompt_tokens=arrival.prompt_tokens,
            expected_tokens=self._lengths.expected(arrival.agent, arrival.model, spec.tier, spec.max_tokens),
            target_s=tier.target_s,
            priority=arrival.priority,
            deadline=None if arrival.deadline_s is None else self.now + arrival.deadline_s,
        )
        self._open[job.id] = _Open(job, arrival, [outcome])
        self._job_of[id(outcome)] = job.id
        if arrival.key and self._coalesce:
            self._shared[arrival.model, arrival.key] = job.id
        self._tell(RequestArrived(job))

    def _give_up(self, outcome: Outcome) -> None:
        entry = self._open[self._job_of[id(outcome)]]
        entry.members.remove(outcome)
        self._end(outcome, Ending.GAVE_UP)
        if not entry.members:
            self._forget(entry)
            self._tell(RequestCancelled(entry.job.id))

    def _changed(self, change: Change, node: str) -> None:
        host, subject = self._hosts[node], change.subject
        if change.kind is ChangeKind.PREFILLED:
            self._tell(PrefillFinished(subject), node)
        elif change.kind is ChangeKind.FINISHED:
            self._finished(subject, node)
        elif change.kind is ChangeKind.LOADED:
            host.loaded(subject, self.now)
            report = host.machine.report(subject)
            self._tell(ModelLoaded(subject, report.footprint_mb, report.vram_mb, report.load_s), node)
        else:
            host.evicted(subject, self.now)
            self._tell(ModelEvicted(subject), node)

    def _finished(self, job_id: str, node: str) -> None:
        run = self._hosts[node].free(job_id)
        entry = self._open.get(job_id)  # None when its clients left
        if entry is not None:
            self._forget(entry)
            tier = self._catalogue.models[run.model].tier
            self._lengths.observe(entry.job.agent, run.model, tier, run.output_tokens)
            self._answers.keep(run.model, entry.arrival.key, self.now)
            for outcome in entry.members:
                self._end(outcome, Ending.ANSWERED)
        prefilled_at = self.now if run.prefilled_at is None else run.prefilled_at
        self._tell(
            GenerationFinished(
                job_id, run.prompt_tokens, run.output_tokens, prefilled_at - run.started_at, self.now - prefilled_at
            ),
            node,
        )

    # --- the policy and its commands ---

    def _tell(self, event: Event, node: str = "") -> None:
        """Hand over an event, carry out the answer, and so on with what that causes at this very moment."""
        events = deque([(event, node)])
        while events:
            event, node = events.popleft()
            if node in self._hosts:
                self._hosts[node].wake_at = None  # a wake-up holds "unless another event comes first"
            for place, command in self._policy.handle(event, self.now, node):
                caused = self._carry_out(command, self._hosts[place])
                if caused is not None:
                    events.append((caused, place))

    def _carry_out(self, command: Command, host: Host) -> Event | None:
        match command:
            case StartGeneration(job_id, model, slot):
                self._start(job_id, model, slot, host)
            case LoadModel(model):
                host.load(model, self.now)
            case EvictModel(model):
                host.evict(model, self.now)
            case WakeAt(at):
                host.wake_at = max(at, self.now)
            case CancelGeneration(job_id):
                if host.cancel(job_id, self.now):  # else its end is on the way
                    return GenerationCancelled(job_id)
            case Reject(job_id):
                self._refuse(job_id, Ending.REJECTED)
            case Fail(job_id):
                self._refuse(job_id, Ending.FAILED)
        return None

    def _start(self, job_id: str, model: str, slot: int, host: Host) -> None:
        entry = self._open.get(job_id)
        if entry is None or entry.started:
            raise Impossible(f"{job_id} was started, but it has {'ended' if entry is None else 'started'} already")
        if model != entry.job.model:
            raise Impossible(f"{job_id} asked for {entry.job.model}, not for {model}")
        host.start(job_id, model, slot, entry.arrival.prompt_tokens, entry.arrival.output_tokens, self.now)
        entry.started = True
        for outcome in entry.members:
            outcome.started_at = self.now

    def _refuse(self, job_id: str, ending: Ending) -> None:
        entry = self._open.get(job_id)
        if entry is None or entry.started:
            raise Impossible(f"{job_id} was {ending.value}, but it {'has ended' if entry is None else 'runs'}")
        self._forget(entry)
        for outcome in entry.members:
            self._end(outcome, ending)

    # --- books ---

    def _forget(self, entry: _Open) -> None:
        del self._open[entry.job.id]
        shared = (entry.job.model, entry.arrival.key)
        if self._shared.get(shared) == entry.job.id:
            del self._shared[shared]

    def _end(self, outcome: Outcome, ending: Ending) -> None:
        if outcome.ended:
            raise Impossible(f"a request of {outcome.agent} ended twice")
        outcome.ending, outcome.ended_at = ending, self.now
        self._job_of.pop(id(outcome), None)  # none for an answer from the cache
        following = self._traffic.after(outcome.agent, self.now)
        if following is not None:
            self._push(following.at_s, following)

    def _balance(self) -> History:
        for outcome in self._outcomes:
            if not outcome.ended:
                if self._traffic.stop_s == math.inf:
                    raise Impossible(f"a request of {outcome.agent} never ended")
                outcome.ended_at = self.now  # its ending stays OPEN
        hosts = self._hosts.values()
        for host in hosts:
            host.close(self.now)
        stays = [stay for host in hosts for stay in host.stays]
        return History(
            outcomes=tuple(self._outcomes),
            ended_at=self.now,
            loads=sum(host.loads for host in hosts),
            evictions=sum(host.evictions for host in hosts),
            gpu_s={use: sum(h.gpu_s[use] for h in hosts) / len(hosts) for use in next(iter(hosts)).gpu_s},
            stays=tuple(sorted(stays, key=lambda stay: stay.load_began)),
            cache_hits=self._answers.hits,
        )
