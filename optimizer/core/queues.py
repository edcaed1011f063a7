"""The queue of one model: who of those waiting for it starts next.

Rule: weighted fair queueing with a head start for the short. Among agents that have had equal service the
shortest predicted request goes first, and an agent with many requests races only with its oldest (its later
tags are larger). Every n-th start goes to the request that has waited longest, whatever its class.
Must not know: slots, residency, other models, or when to swap.

Tags follow Demers, Keshav, Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (1989):
    start = max(V, finish of the agent's previous request);   finish = start + cost / weight
and V, the virtual time, advances by cost / (weights of the agents that wait) with every start. They tag with
the finish; we with start + SHORT_FIRST x cost / weight: the long-run shares are the same, the shortest come
sooner. The agent's finish is corrected by what a request really cost (VTC's counters), and forgotten when it
has nothing waiting: nobody pays in the morning for having been alone at night.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.core.job import Job

SHORT_FIRST = 8.0  # how much more a request's own length counts in its tag than its agent's past (docs/scheduling.md)
FRONT = -1  # the class of a requeued request: before every priority
FILL_SCAN = 64  # how many of the queue's front are looked at for a request that fits a drain


@dataclass(slots=True, eq=False)
class Entry:
    """One request in the scheduler, from arrival to its end."""

    job: Job
    arrived: float
    seq: int  # arrival number: breaks ties, so that equal logs replay equally
    cost_s: float  # predicted seconds on its model
    tag: float = 0.0
    rank: int = 0  # its priority class, or FRONT
    waiting: bool = False
    retried: bool = False  # requeued once already

    def __lt__(self, other: "Entry") -> bool:
        return (self.rank, self.tag, self.seq) < (other.rank, other.tag, other.seq)

    def overdue(self, now: float) -> float:
        """Age as a multiple of its response-time target."""
        return (now - self.arrived) / self.job.target_s


_Keyed = tuple[int, float, int, Entry]


def _keyed(entry: Entry) -> _Keyed:
    return entry.rank, entry.tag, entry.seq, entry


class ModelQueue:
    """Those waiting for one model. Every operation is O(log n); removal is lazy."""

    def __init__(self, order: str) -> None:
        self.order = order  # wfq | shortest | fifo (thresholds.order)
        self.agents: dict[str, int] = {}  # agent -> how many of its requests wait here
        self.work_s = 0.0  # predicted seconds of everything waiting
        self.claim = 0.0  # sum of 1 / target of everything waiting
        self._ready: list[_Keyed] = []  # heap in the order of starting; tuples compare three times faster than entries
        self._arrivals: deque[Entry] = deque()  # oldest first
        self._count = 0
        self._starts = 0
        self._virtual = 0.0
        self._finish: dict[str, float] = {}  # agent -> tag of its last request
        self._weights = 0.0  # of the agents that wait

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        """Those waiting, in order of arrival."""
        return (entry for entry in self._arrivals if entry.waiting)

    def push(self, entry: Entry) -> None:
        """A new arrival joins; one that waited on another node takes the place of its age."""
        entry.rank = int(entry.job.priority)
        entry.tag = self._tag(entry)
        arrivals, place = self._arrivals, len(self._arrivals)
        while place and arrivals[place - 1].arrived > entry.arrived:
            place -= 1
        arrivals.insert(place, entry)
        self._join(entry)

    def push_front(self, entry: Entry) -> None:
        """A request that broke off through no fault of its own goes before everybody."""
        entry.rank, entry.tag = FRONT, 0.0
        self._arrivals.appendleft(entry)
        self._join(entry)

    def remove(self, entry: Entry) -> None:
        """It was cancelled: its agent is not charged for it."""
        self._leave(entry)
        if entry.rank != FRONT and entry.job.agent in self._finish:
            self._finish[entry.job.agent] -= entry.cost_s / entry.job.weight

    def charge(self, agent: str, weight: float, extra_s: float) -> None:
        """A started request of `agent` cost `extra_s` more (or less) than predicted."""
        if agent in self._finish:
            self._finish[agent] += extra_s / weight

    def first(self) -> Entry | None:
        """Who starts next, by the order alone."""
        ready = self._ready
        while ready and not ready[0][3].waiting:
            heapq.heappop(ready)
        return ready[0][3] if ready else None

    def next(self, longest_waiting_every: int) -> Entry | None:
        """Who starts next; every n-th start goes to the one that has waited longest, whatever its class."""
        return self.oldest() if (self._starts + 1) % longest_waiting_every == 0 else self.first()

    def oldest(self) -> Entry | None:
        """Who has waited longest: the one that speaks for the model's urgency."""
        arrivals = self._arrivals
        while arrivals and not arrivals[0].waiting:
            arrivals.popleft()
        return arrivals[0] if arrivals else None

    def fitting(self, within_s: float) -> Entry | None:
        """The first among the front of the queue that is predicted to run no longer than `within_s`."""
        front = (keyed[3] for keyed in self._ready[:FILL_SCAN])
        fits = (entry for entry in front if entry.waiting and entry.cost_s <= within_s)
        return min(fits, default=None)

    def start(self, entry: Entry) -> None:
        """Take `entry` out to run it; virtual time advances by its share."""
        self._starts += 1
        self._virtual += entry.cost_s / self._weights
        self._leave(entry)

    def reorder(self, order: str) -> None:
        """Another order from now on, for those already waiting too."""
        if order == self.order:
            return
        self.order = order
        self._virtual = 0.0
        self._finish.clear()
        for entry in self:
            if entry.rank != FRONT:
                entry.tag = self._tag(entry)
        self._ready = [_keyed(entry) for entry in self]
        heapq.heapify(self._ready)

    def _tag(self, entry: Entry) -> float:
        if self.order == "fifo":
            return entry.arrived
        if self.order == "shortest":
            return entry.cost_s
        agent = entry.job.agent
        start = max(self._virtual, self._finish.get(agent, 0.0))
        share_s = entry.cost_s / entry.job.weight
        self._finish[agent] = start + share_s
        return start + SHORT_FIRST * share_s

    def _join(self, entry: Entry) -> None:
        entry.waiting = True
        agent = entry.job.agent
        self._count += 1
        self.work_s += entry.cost_s
        self.claim += 1.0 / entry.job.target_s
        if agent not in self.agents:
            self.agents[agent] = 0
            self._weights += entry.job.weight
        self.agents[agent] += 1
        heapq.heappush(self._ready, _keyed(entry))

    def _leave(self, entry: Entry) -> None:
        entry.waiting = False
        agent = entry.job.agent
        self._count -= 1
        self.work_s -= entry.cost_s
        self.claim -= 1.0 / entry.job.target_s
        self.agents[agent] -= 1
        if not self.agents[agent]:
            del self.agents[agent]
            self._finish.pop(agent, None)  # debts end with the backlog
            self._weights -= entry.job.weight
        if not self._count:
            self._forget()
        elif len(self._arrivals) > 2 * self._count + FILL_SCAN or len(self._ready) > 2 * self._count + FILL_SCAN:
            self._compact()

    def _forget(self) -> None:
        """Nobody waits: no debts remain, and rounding errors go with them."""
        self._ready.clear()
        self._arrivals.clear()
        self._finish.clear()
        self._virtual = self._weights = self.work_s = self.claim = 0.0

    def _compact(self) -> None:
        """Drop what was removed lazily; amortised O(1), as half of the list is dead."""
        self._arrivals = deque(self)
        self._ready = [_keyed(entry) for entry in self._arrivals]
        heapq.heapify(self._ready)
