"""What each agent did in the last quarter of an hour: requests, failures, seconds on the slots.

Rule: counted by the minute and forgotten by the minute; only records that are new are looked at.
Must not know: who shows it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from optimizer.journal import Bar
from optimizer.ports import Record

MINUTES = 15


@dataclass(slots=True)
class Figures:
    requests: int = 0
    bad: int = 0  # failed or rejected
    busy_s: float = 0.0  # on the slots


class Activity:
    """`note` what ended, `of_agents` for the sums."""

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, dict[str, Figures]]] = deque(maxlen=MINUTES)
        self._last: Record | None = None

    def note(self, recent: Iterable[Record], runs: Iterable[Bar], now: float) -> None:
        """Take in the journal's `recent` (newest first) and runs that ended. `now` in seconds on any clock."""
        figures = self._this_minute(int(now // 60))
        newest: Record | None = None
        for record in recent:
            if record is self._last:
                break
            newest = newest or record
            entry = figures.setdefault(record.agent, Figures())
            entry.requests += 1
            entry.bad += record.status in ("failed", "rejected")
        self._last = newest or self._last
        for run in runs:
            if run.end is not None:
                figures.setdefault(run.agent, Figures()).busy_s += run.end - run.start

    def of_agents(self, now: float) -> dict[str, Figures]:
        """Sums by agent; agents that did nothing are left out."""
        oldest = int(now // 60) - MINUTES
        sums: dict[str, Figures] = {}
        for minute, figures in self._minutes:
            if minute <= oldest:
                continue
            for agent, entry in figures.items():
                total = sums.setdefault(agent, Figures())
                total.requests += entry.requests
                total.bad += entry.bad
                total.busy_s += entry.busy_s
        return sums

    def _this_minute(self, minute: int) -> dict[str, Figures]:
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, {}))
        return self._minutes[-1][1]
