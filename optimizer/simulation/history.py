"""What a run of the simulation leaves behind: every request's end, every model's stay, the GPU's time.

Rule: values only; metrics and pictures are made from them elsewhere. Must not know: policies or the world.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    ANSWERED = "answered"
    REJECTED = "rejected"
    FAILED = "failed"
    GAVE_UP = "gave up"
    OPEN = "open"  # the clock stopped first (closed loops only)


@dataclass(slots=True)
class Outcome:
    """What became of one request. Times in virtual seconds."""

    agent: str
    model: str
    arrived_at: float
    target_s: float
    output_tokens: int
    started_at: float | None = None
    ended_at: float = math.nan
    ending: Ending = Ending.OPEN

    @property
    def ended(self) -> bool:
        """Whether its end has come; an open request of a stopped clock counts as ended too."""
        return not math.isnan(self.ended_at)

    @property
    def latency_s(self) -> float:
        """Arrival to end; of an open request, to the end of the clock."""
        return self.ended_at - self.arrived_at

    @property
    def wait_s(self) -> float:
        """Arrival to the start of its generation, or to its end when it never started."""
        return (self.ended_at if self.started_at is None else self.started_at) - self.arrived_at


@dataclass(frozen=True, slots=True)
class Stay:
    """A model's time in memory, from the start of its load to the end of its eviction (or of the clock)."""

    model: str
    load_began: float
    loaded_at: float
    evict_began: float
    gone_at: float


@dataclass(frozen=True, slots=True)
class History:
    """Everything that happened in one run of a policy. `gpu_s` splits the clock by what the GPU did."""

    outcomes: tuple[Outcome, ...]
    ended_at: float
    loads: int
    evictions: int
    gpu_s: Mapping[str, float]
    stays: tuple[Stay, ...]
    cache_hits: int = 0


# `gpu_s` keys: generating with at least as many runs as slots, generating with fewer, nothing running while a
# model is moved, nothing running although somebody waits, nothing to do.
FULL, PARTIAL, SWAPPING, HELD, EMPTY = "full", "partial", "swapping", "held", "empty"
