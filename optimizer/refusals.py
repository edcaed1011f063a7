"""How a refusal at admission reads to the caller.

Rule: every sentence says when to come back, where coming back helps. Must not know: why it was decided.
"""

from optimizer.core.commands import RejectReason
from optimizer.core.errors import (
    AgentLimit,
    DeadlineUnreachable,
    IntakePaused,
    LoadFailed,
    NarrowgaugeError,
    SystemFull,
)


def refusal(reason: RejectReason, retry_after_s: float, predicted_s: float) -> NarrowgaugeError:
    """The error that a caller gets. Seconds; `predicted_s` is the predicted finish, for deadlines."""
    wait = f"try again in about {retry_after_s:.0f} s"
    match reason:
        case RejectReason.AGENT_LIMIT:
            return AgentLimit(f"this agent has as many requests waiting as it may; {wait}", retry_after_s=retry_after_s)
        case RejectReason.SYSTEM_FULL:
            return SystemFull(f"the queue is full; {wait}", retry_after_s=retry_after_s)
        case RejectReason.DEADLINE:
            text = f"predicted to finish in {predicted_s:.1f} s, after its deadline; {wait}"
            return DeadlineUnreachable(text, retry_after_s=retry_after_s)
        case RejectReason.NEVER_FITS:
            return LoadFailed("the model needs more memory than the GPU has")
        case RejectReason.AGENT_PAUSED:
            return IntakePaused(f"this agent is paused; {wait}", retry_after_s=retry_after_s)
        case RejectReason.INTAKE_PAUSED:
            return IntakePaused(f"intake is paused; {wait}", retry_after_s=retry_after_s)
