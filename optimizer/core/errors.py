"""Every error Narrowgauge raises on purpose, in one tree that says whose fault it is.

    NarrowgaugeError
    ├── RequestError          the caller's fault; retrying unchanged will not help
    │   ├── InvalidRequest
    │   ├── ModelNotFound
    │   ├── ContextOverflow
    │   └── UnsupportedFeature
    ├── Refused               nobody's fault; the same request may succeed after `retry_after_s`
    │   ├── AgentLimit        the agent's own limit
    │   ├── SystemFull        everybody's limit
    │   ├── DeadlineUnreachable
    │   └── IntakePaused
    ├── BackendError          the model backend's fault
    │   ├── BackendUnavailable
    │   ├── ModelFileMissing
    │   ├── LoadFailed
    │   └── GenerationFailed
    ├── Cancelled             the caller left, or an operator cancelled it
    └── ConfigurationError    the operator's fault; raised at start-up

Anything else that escapes is a bug: it crashes loudly and is logged once.
HTTP status codes are mapped at the edge (`controlplane/wire/errors.py`), never here.
"""


class NarrowgaugeError(Exception):
    """Base of the tree. `str(error)` is a sentence a user can act on; it holds no prompt and no key."""


class RequestError(NarrowgaugeError):
    """The caller's fault. `param` names the offending field, where one is known."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """Wrong types, empty messages, values out of range."""


class ModelNotFound(RequestError):
    """The named model or tier is not served here."""

    def __init__(self, model: str) -> None:
        # Clients of both protocols match on "not found" (wire.md, 2).
        super().__init__(f"model '{model}' not found", param="model")
        self.model = model


class ContextOverflow(RequestError):
    """The request cannot fit the model's window; it is refused rather than cut silently."""


class UnsupportedFeature(RequestError):
    """The model cannot do what was asked (tools, images, embeddings)."""


class Refused(NarrowgaugeError):
    """Not now. `retry_after_s` is the predicted time until the same request would be admitted."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AgentLimit(Refused):
    """The agent has as many requests waiting, or has taken as much, as it may."""


class SystemFull(Refused):
    """The whole queue is full."""


class DeadlineUnreachable(Refused):
    """Predicted to finish after its deadline; refused at admission instead of failing late."""


class IntakePaused(Refused):
    """An operator paused intake, this agent, or the whole node is draining."""


class BackendError(NarrowgaugeError):
    """The model backend's fault."""


class BackendUnavailable(BackendError):
    """Nothing answers, or it answers and generates nothing (wedged)."""


class ModelFileMissing(BackendError):
    """The backend is up but does not have the model's file; the message says how to get it."""


class LoadFailed(BackendError):
    """The model could not be brought into memory."""


class GenerationFailed(BackendError):
    """A generation broke off."""


class Cancelled(NarrowgaugeError):
    """The request was cancelled; no answer follows."""


class ConfigurationError(NarrowgaugeError):
    """Start-up cannot go on; the message says what to change."""
