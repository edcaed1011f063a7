"""A flight: one generation on its way, and everybody who waits for its answer.

Rule: items are appended once and read by each follower at its own pace, so a slow reader holds up nobody and
a late one (a coalesced duplicate) sees the answer from its start. Memory is the answer's own size.
Must not know: the scheduler, the backend, or how an answer is delivered.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from optimizer.core.errors import NarrowgaugeError
from optimizer.pipeline import Shaped
from optimizer.ports import Completed, Delta, Finished


@dataclass(slots=True, eq=False)
class Flight:
    """Times are the runner's monotonic seconds."""

    shaped: Shaped
    arrived: float
    loads_before_s: Mapping[str, float]  # each node's load clock at arrival
    followers: int = 0
    attempt: int = 0
    slot: int | None = None
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    load_s: float = 0.0
    tokens: int = 0  # deltas seen: about one token each
    items: list[Delta | Completed] = field(default_factory=list)
    vectors: tuple[tuple[float, ...], ...] = ()  # of an embedding
    good: bool | None = None  # what the automatic check says of the answer
    broken: str = ""  # why the watch ended this run, if it did
    error: NarrowgaugeError | None = None
    ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.shaped.job.id

    def add(self, item: Delta | Completed) -> None:
        self.items.append(item)
        self._wake()

    def finish(self, completed: Completed) -> None:
        """Ends the flight with an answer."""
        assert not self.ended, self.id
        self.ended = True
        self.add(completed)

    def fail(self, error: NarrowgaugeError) -> None:
        """Ends the flight with an error."""
        assert not self.ended, self.id
        self.ended, self.error = True, error
        self._wake()

    def restart(self) -> None:
        """Back to waiting; only a flight that has shown nothing may restart."""
        assert not self.items, self.id
        self.slot = self.started = self.first_token = self.last_token = None
        self.broken = ""
        self.attempt += 1

    async def follow(self, patience_s: float) -> AsyncGenerator[Delta | Completed | None, None]:
        """Every item from the start; None whenever nothing came for `patience_s`. Raises the flight's error."""
        seen = 0
        while True:
            while seen < len(self.items):
                seen += 1
                yield self.items[seen - 1]
            if self.ended:
                if self.error is not None:
                    raise self.error
                return
            changed = self._changed
            try:
                async with asyncio.timeout(patience_s):
                    await changed.wait()
            except TimeoutError:
                if changed is self._changed:  # else it changed at that very moment
                    yield None

    def _wake(self) -> None:
        # A fresh event per change: every follower that waits on the old one wakes exactly once.
        self._changed.set()
        self._changed = asyncio.Event()


class Home(Protocol):
    """Whose flights a node carries."""

    @property
    def flights(self) -> Mapping[str, Flight]:
        """By job id, until ended and followed by nobody."""
        ...

    def completed(self, flight: Flight, finished: Finished) -> None:
        """Its run gave a whole answer."""
        ...

    def gone(self, flight: Flight) -> None:
        """Nothing of it is left on the node."""
        ...

    def refused(self, job_id: str, error: NarrowgaugeError) -> None:
        """It will not run (again)."""
        ...
