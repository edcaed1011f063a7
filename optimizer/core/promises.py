"""Places in a full queue, promised to those who were refused: who comes back when told is let in.

Rule: promises are made in turn. A place that falls free is kept for those whose time has come, as far as such clients
have been coming back lately; so a Retry-After is true, and clients that never come back cost nobody a place for long.
A promise belongs to an agent, not to a request: a request that comes again is not known by its id.
Must not know: models, queues, or how a refusal is worded.
"""

from collections import deque
from dataclasses import dataclass

EARLY_S = 1.0  # Retry-After is whole seconds, and clocks differ: so much too early is in time
LATE_S = 2.0  # a promise lapses so long after its time, and a tenth of the time it was made for
LATE_SHARE = 0.1
MOST = 50_000  # promises kept; beyond it no more are made
MEASURED_FROM = 50  # places given since the queue was full, from which on their rate counts, not the predicted one
MEASURED_OVER = 400  # places; older ones count half
SMOOTHING = 0.02  # weight of the newest promise in the share that is kept


@dataclass(slots=True, eq=False)
class Promise:
    """Seconds on the scheduler's clock."""

    agent: str
    due: float
    lapses: float
    stands: bool = True


class Promises:
    """The promises of one full queue. Every operation is O(1), spread over its calls."""

    def __init__(self) -> None:
        self.kept = 1.0  # share of promises whose client came back in time, lately
        self.last_due = 0.0  # of the one made last
        self._of_agent: dict[str, deque[Promise]] = {}
        self._later: deque[Promise] = deque()  # in order of making, which is nearly that of their times
        self._near: dict[int, Promise] = {}  # those whose time has come, by id, in that order
        self._count = 0
        self._full_since = 0.0
        self._given = 0.0  # places that fell free since

    def __len__(self) -> int:
        return self._count

    @property
    def expected(self) -> float:
        """How many of those promised a place will take it."""
        return self.kept * self._count

    @property
    def expected_now(self) -> float:
        """How many of those whose time has come will."""
        return self.kept * len(self._near)

    def make(self, agent: str, now: float, in_s: float) -> None:
        """A client is told to come again in `in_s` seconds. If its time had come, it goes on waiting for it."""
        if self.due(agent):
            self._end(self._of_agent[agent][0])
        elif self._count >= MOST:
            return
        if not self._count:
            self._full_since, self._given = now, 0.0
        promise = Promise(agent, now + in_s, now + (1.0 + LATE_SHARE) * in_s + LATE_S)
        self._of_agent.setdefault(agent, deque()).append(promise)
        self._later.append(promise)
        self._count += 1
        self.last_due = promise.due

    def advance(self, now: float) -> None:
        """Time has passed: some are due, some have lapsed."""
        while self._later and self._later[0].due - EARLY_S <= now:
            promise = self._later.popleft()
            if promise.stands:
                self._near[id(promise)] = promise
        while self._near and (first := next(iter(self._near.values()))).lapses < now:
            self._end(first)
            self._learn(0.0)

    def freed(self, now: float) -> None:
        """Somebody has left the queue for a slot."""
        if self._count:
            self._given += 1.0
            if self._given >= MEASURED_OVER:
                self._given /= 2.0
                self._full_since = (self._full_since + now) / 2.0

    def place_s(self, predicted_s: float, now: float) -> float:
        """Seconds from one free place to the next: as measured while the queue was full, else as predicted."""
        if self._count and self._given >= MEASURED_FROM:
            return (now - self._full_since) / self._given
        return predicted_s

    def due(self, agent: str) -> bool:
        """Whether a client of `agent` comes back in time now (as of the last `advance`)."""
        own = self._of_agent.get(agent)
        return own is not None and id(own[0]) in self._near

    def keep(self, agent: str) -> None:
        """The agent's first promise is taken up. Raises KeyError when it has none."""
        self._end(self._of_agent[agent][0])
        self._learn(1.0)

    def _end(self, promise: Promise) -> None:
        promise.stands = False
        self._near.pop(id(promise), None)
        own = self._of_agent[promise.agent]
        own.remove(promise)
        if not own:
            del self._of_agent[promise.agent]
        self._count -= 1

    def _learn(self, kept: float) -> None:
        self.kept += SMOOTHING * (kept - self.kept)
