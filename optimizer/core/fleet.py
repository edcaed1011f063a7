"""All nodes as one: each has its own scheduler, and every request is on exactly one of them.

Rule: a request is placed once, when it arrives (placement.py). It moves only while it waits: away from a node that
is lost or drained, or to a node that would else be idle. What a lost node ran in vain is begun once more, on whatever
node; that is the scheduler's word, carried along with the request. With one node nothing here decides anything.
Must not know: who carries the commands out, or whether `now` is real or simulated seconds.
"""

from collections.abc import Mapping, Sequence

from optimizer.core import events as ev
from optimizer.core.commands import Command
from optimizer.core.events import Event
from optimizer.core.forecast import View, merged
from optimizer.core.job import Job
from optimizer.core.placement import choose, helps
from optimizer.core.queues import Entry
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue

Ordered = tuple[str, Command]  # to the node of that name


class Fleet:
    """The schedulers by the name of their node, in the order they were given."""

    def __init__(self, nodes: Mapping[str, Thresholds], catalogue: Catalogue) -> None:
        assert nodes, "no node"
        self.nodes: dict[str, Scheduler] = {name: Scheduler(own, catalogue) for name, own in nodes.items()}
        for scheduler in self.nodes.values():
            scheduler.learn_from(other for other in self.nodes.values() if other is not scheduler)
        self._first = next(iter(self.nodes))
        self._commands: list[Ordered] = []

    def handle(self, event: Event, now: float, node: str = "") -> list[Ordered]:
        """Take in what happened at `now`; `node` says where, "" for what comes from outside. What to do next.

        Raises ValueError when a job id is used twice at once, KeyError for an unknown node (bugs of the caller).
        """
        self._commands = []
        if len(self.nodes) == 1:
            self._tell(node or self._first, event, now)
            return self._commands
        if node:
            self._tell(node, event, now)
        else:
            self._from_outside(event, now)
        if isinstance(event, ev.BackendLost | ev.NodeDrained | ev.BackendRecovered | ev.NodeResumed):
            self._empty_unusable(now)
        self._help(now)
        return self._commands

    # --- what others may ask ---------------------------------------------------------------------

    def place(self, job: Job, now: float) -> str:
        """The node where a request that arrived now belongs; the first where no node has its model.

        One that promised its agent a place in a full queue keeps its word.
        """
        if len(self.nodes) == 1:
            return self._first
        serving = [name for name, scheduler in self.nodes.items() if scheduler.serves(job.model)]
        expecting = [name for name in serving if self.nodes[name].usable and self.nodes[name].expects(job.agent)]
        best = choose(self.nodes[name].offer(name, job, now) for name in expecting or serving)
        return best.node if best else self._first

    def node_of(self, job_id: str) -> str:
        """Where a request waits or runs; "" when it is not here (any more)."""
        return next((name for name, scheduler in self.nodes.items() if scheduler.holds(job_id)), "")

    def snapshot(self, now: float) -> View:
        """The picture of all nodes together; slots are numbered through."""
        return merged([scheduler.snapshot(now) for scheduler in self.nodes.values()])

    def position(self, job_id: str, now: float) -> tuple[int, float, str]:
        """As a scheduler's, of the node where the request is. KeyError: not here."""
        return self.nodes[self.node_of(job_id) or self._first].position(job_id, now)

    def ends_in_s(self, job_id: str, now: float) -> float | None:
        """As a scheduler's, of the node where the request is; None for one that is not here."""
        return self.nodes[self.node_of(job_id) or self._first].ends_in_s(job_id, now)

    def predicted_wait_s(self, model: str, now: float) -> float:
        """Predicted wait of a request for `model` that arrived now, on the node that is best for it. Seconds."""
        usable = [s for s in self.nodes.values() if s.usable and s.serves(model)] or list(self.nodes.values())
        return min(scheduler.predicted_wait_s(model, now) for scheduler in usable)

    def waiting(self) -> list[tuple[Job, float]]:
        """Every waiting job with the time it arrived. O(waiting)."""
        return [waiting for scheduler in self.nodes.values() for waiting in scheduler.waiting()]

    def waiting_of_agents(self) -> dict[str, int]:
        """How many requests each agent has waiting; agents without are left out."""
        sums: dict[str, int] = {}
        for scheduler in self.nodes.values():
            for agent, count in scheduler.waiting_of_agents().items():
                sums[agent] = sums.get(agent, 0) + count
        return sums

    def residents(self) -> tuple[str, ...]:
        """Models that are loaded somewhere and not on their way out."""
        return tuple(dict.fromkeys(model for scheduler in self.nodes.values() for model in scheduler.residents()))

    def invariants(self) -> None:
        """Raise AssertionError unless every promise holds. For tests."""
        for scheduler in self.nodes.values():
            scheduler.invariants()
        here = [job_id for scheduler in self.nodes.values() for job_id in scheduler.holding()]
        assert len(here) == len(set(here)), "a request is on two nodes"

    # --- inside ------------------------------------------------------------------------------------

    def _tell(self, node: str, event: Event, now: float) -> None:
        self._commands += [(node, command) for command in self.nodes[node].handle(event, now)]

    def _from_outside(self, event: Event, now: float) -> None:
        match event:
            case ev.RequestArrived(job):
                node = self.place(job, now)
                elsewhere = sum(s.waiting_of(job.agent) for name, s in self.nodes.items() if name != node)
                self._tell(node, ev.RequestArrived(job, elsewhere), now)
            case ev.RequestCancelled(job_id):
                self._tell(self.node_of(job_id) or self._first, event, now)
            case ev.ModelPinned(model) | ev.LoadRequested(model):
                for node in self._of_model(model, now):
                    self._tell(node, event, now)
            case _:
                for node in self.nodes:
                    self._tell(node, event, now)

    def _of_model(self, model: str, now: float) -> Sequence[str]:
        """Where a model is, else the node where it comes in soonest."""
        having = [name for name, scheduler in self.nodes.items() if model in scheduler.residents()]
        if having:
            return having
        usable = [name for name, scheduler in self.nodes.items() if scheduler.usable and scheduler.serves(model)]
        return sorted(usable, key=lambda name: self.nodes[name].predicted_wait_s(model, now))[:1]

    def _empty_unusable(self, now: float) -> None:
        """Everybody who waits on a node that is lost or drained goes to others, if one can be used."""
        for node, scheduler in self.nodes.items():
            if scheduler.usable:
                continue
            for entry in scheduler.entries():
                takers = [name for name, s in self.nodes.items() if s.usable and s.serves(entry.job.model)]
                best = choose(self.nodes[name].offer(name, entry.job, now) for name in takers)
                if best is not None and entry.waiting:  # a drained node may start it meanwhile
                    self._move(entry, node, best.node, now)

    def _help(self, now: float) -> None:
        """A node that has nothing to do takes over what would wait long elsewhere."""
        for name, scheduler in self.nodes.items():
            while scheduler.usable and scheduler.idle and self._take_one(name, now):
                pass

    def _take_one(self, idle: str, now: float) -> bool:
        best: tuple[float, Entry, str] | None = None
        for name, scheduler in self.nodes.items():
            if name == idle:
                continue
            for entry in scheduler.heads():
                job = entry.job
                if not self.nodes[idle].serves(job.model):
                    continue
                wait_s = scheduler.predicted_wait_s(job.model, now)
                if (best is None or wait_s > best[0]) and helps(self.nodes[idle].offer(idle, job, now), wait_s):
                    best = wait_s, entry, name
        if best is None:
            return False
        _, entry, name = best
        self._move(entry, name, idle, now)
        return True

    def _move(self, entry: Entry, away_from: str, to: str, now: float) -> None:
        self._tell(away_from, ev.RequestGivenAway(entry.job.id), now)
        self._tell(to, ev.RequestTakenOver(entry.job, entry.arrived, entry.retried), now)
