"""What happened, past tense: the scheduler's only input besides the time.

Rule: an event is a fact. It carries measurements, never instructions; operator wishes are facts too
("EvictionRequested"). Must not know: who observed it.
"""

from dataclasses import dataclass

from optimizer.core.job import Job
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """`elsewhere` counts what its agent has waiting on other nodes: an agent's limit holds over all of them."""

    job: Job
    elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class RequestTakenOver:
    """Admitted on another node and not begun there, or begun in vain (`retried`); it keeps its age."""

    job: Job
    arrived: float
    retried: bool


@dataclass(frozen=True, slots=True)
class RequestGivenAway:
    """Another node takes it over; only one that waits."""

    job_id: str


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    job_id: str


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """`vram_mb` < `footprint_mb` means partial offload; both as the backend measured them."""

    model: str
    footprint_mb: float
    vram_mb: float
    load_s: float


@dataclass(frozen=True, slots=True)
class ModelLoadFailed:
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelEvicted:
    model: str


@dataclass(frozen=True, slots=True)
class PrefillFinished:
    """The first token is out."""

    job_id: str


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """0.0 for a duration that the backend does not report."""

    job_id: str
    prompt_tokens: int
    output_tokens: int
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """`retry` is true when no token reached the caller, so the job may be requeued (once)."""

    job_id: str
    reason: str
    retry: bool


@dataclass(frozen=True, slots=True)
class GenerationCancelled:
    """The backend confirmed that a cancelled generation has stopped; its slot is free."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Resident:
    """One model in memory as the backend reports it."""

    model: str
    footprint_mb: float
    vram_mb: float


@dataclass(frozen=True, slots=True)
class ResidencyObserved:
    """What the backend holds, asked at start-up, after recovery and for drift. The whole truth."""

    residents: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class BackendLost:
    """Dead or wedged: everything running on it is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class BackendRecovered:
    residents: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class ThresholdsChanged:
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class IntakePaused:
    """New requests are refused; waiting and running ones go on (drain)."""


@dataclass(frozen=True, slots=True)
class IntakeResumed:
    pass


@dataclass(frozen=True, slots=True)
class AgentPaused:
    agent: str


@dataclass(frozen=True, slots=True)
class AgentResumed:
    agent: str


@dataclass(frozen=True, slots=True)
class ModelPinned:
    """Never evict it for another until unpinned."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelUnpinned:
    model: str


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """An operator wants the model in now, draining what must leave."""

    model: str


@dataclass(frozen=True, slots=True)
class EvictionRequested:
    """An operator wants the model out as soon as its running requests end."""

    model: str


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """For maintenance: nothing new is put here; what runs ends, then every model leaves."""


@dataclass(frozen=True, slots=True)
class NodeResumed:
    pass


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The moment an earlier `WakeAt` asked for has come."""


Event = (
    RequestArrived
    | RequestTakenOver
    | RequestGivenAway
    | RequestCancelled
    | ModelLoaded
    | ModelLoadFailed
    | ModelEvicted
    | PrefillFinished
    | GenerationFinished
    | GenerationFailed
    | GenerationCancelled
    | ResidencyObserved
    | BackendLost
    | BackendRecovered
    | ThresholdsChanged
    | CatalogueChanged
    | IntakePaused
    | IntakeResumed
    | AgentPaused
    | AgentResumed
    | ModelPinned
    | ModelUnpinned
    | LoadRequested
    | EvictionRequested
    | NodeDrained
    | NodeResumed
    | TimerFired
)
