"""The last quarter of an hour as few bars: what ran on each slot, what was loaded and evicted.

Rule: runs of one model that follow each other on a slot become one bar with a count, so that a busy card is
drawn with as many bars as it changed models, not with thousands. Only bars that are new are looked at.
Must not know: who draws it, or wall-clock time (seconds of the runner's clock throughout).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from optimizer.journal import Bar

HORIZON_S = 900.0
JOIN_S = 1.0  # runs with a shorter pause between them are one bar
MOST = 320  # bars kept: one every 3 s for a quarter of an hour; some 20 kB as JSON


@dataclass(slots=True, eq=False)
class Segment:
    """One bar as it is drawn. `end` None while it lasts; `changed` is when this was last written to."""

    number: int
    kind: str  # run | load | evict | lost
    model: str
    slot: int | None
    start: float
    end: float | None
    runs: int
    agent: str  # of a single run
    failed: bool
    changed: float

    def as_data(self, now: float) -> list[Any]:
        """[number, kind, model, slot, start, end, runs, agent, failed], in seconds before now."""
        end = None if self.end is None else round(self.end - now, 1)
        agent = self.agent if self.runs == 1 else ""
        return [
            self.number,
            self.kind,
            self.model,
            self.slot,
            round(self.start - now, 1),
            end,
            self.runs,
            agent,
            self.failed,
        ]


class Timeline:
    """`take` what the journal has, then ask for all of it or for what changed lately."""

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque(maxlen=MOST)
        self._of_slot: dict[int | None, Segment] = {}
        self._lasting: list[tuple[Bar, Segment]] = []
        self._seen = float("-inf")
        self._number = 0

    def take(self, bars: Iterable[Bar], now: float) -> list[Bar]:
        """Take in `bars` (the journal's, newest last, read from its end); returns the runs that are new."""
        fresh: list[Bar] = []
        for bar in bars:
            written = bar.end if bar.kind == "run" and bar.end is not None else bar.start
            if written <= self._seen:
                break
            fresh.append(bar)
        self._seen = now
        for bar, segment in self._lasting:
            if bar.end is not None:
                segment.end, segment.failed, segment.changed = bar.end, bar.failed, now
        self._lasting = [(bar, segment) for bar, segment in self._lasting if bar.end is None]
        runs = []
        for bar in reversed(fresh):
            if bar.kind == "run":
                runs.append(bar)
            self._add(bar, now)
        return runs

    def all(self, now: float) -> list[list[Any]]:
        """Every bar of the last quarter of an hour."""
        return [s.as_data(now) for s in self._segments if s.end is None or now - s.end < HORIZON_S]

    def changed_since(self, moment: float, now: float) -> list[list[Any]]:
        """Bars that began or were written to after `moment`."""
        return [segment.as_data(now) for segment in self._segments if segment.changed > moment]

    def _add(self, bar: Bar, now: float) -> None:
        last = self._of_slot.get(bar.slot) if bar.kind == "run" else None
        if (
            last is not None
            and last.end is not None
            and bar.end is not None
            and last.model == bar.model
            and bar.start - last.end < JOIN_S
            and last.failed == bar.failed
        ):
            last.end, last.runs, last.changed = bar.end, last.runs + 1, now
            return
        self._number += 1
        segment = Segment(
            self._number, bar.kind, bar.model, bar.slot, bar.start, bar.end, 1, bar.agent, bar.failed, now
        )
        self._segments.append(segment)
        if bar.kind == "run":
            self._of_slot[bar.slot] = segment
        elif bar.end is None:
            self._lasting.append((bar, segment))
