"""What to do next, imperative: the scheduler's only output.

Rule: every command is answered by exactly one event (`LoadModel` by ModelLoaded or ModelLoadFailed,
`EvictModel` by ModelEvicted, `StartGeneration` by GenerationFinished, -Failed or -Cancelled), except
Reject, Fail and WakeAt, which end or wait for something. Must not know: how they are carried out.
"""

from dataclasses import dataclass
from enum import StrEnum


class RejectReason(StrEnum):
    AGENT_LIMIT = "agent_limit"
    SYSTEM_FULL = "system_full"
    DEADLINE = "deadline"
    INTAKE_PAUSED = "intake_paused"
    AGENT_PAUSED = "agent_paused"
    NEVER_FITS = "never_fits"  # the model is larger than the usable VRAM and may not spill


@dataclass(frozen=True, slots=True)
class LoadModel:
    model: str


@dataclass(frozen=True, slots=True)
class EvictModel:
    model: str


@dataclass(frozen=True, slots=True)
class StartGeneration:
    job_id: str
    model: str
    slot: int


@dataclass(frozen=True, slots=True)
class CancelGeneration:
    """Stop a running generation; the slot stays taken until GenerationCancelled confirms it."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse at admission. `retry_after_s` is the predicted drain; `predicted_s` the predicted finish."""

    job_id: str
    reason: RejectReason
    retry_after_s: float
    predicted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    """End an admitted request with an error (its model cannot load, or it failed twice)."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send TimerFired at this time unless another event comes first; a later WakeAt replaces it."""

    at: float


Command = LoadModel | EvictModel | StartGeneration | CancelGeneration | Reject | Fail | WakeAt
