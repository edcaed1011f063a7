"""Every error as an answer: HTTP status, machine-readable code and the two protocols' shapes.

Rule: this is the one place where the error tree meets HTTP. A message reaches a client only if it was written
for clients (the tree's sentences are); of anything else the client learns nothing but that it was our fault.
Must not know: how an answer is sent.
"""

import json
import math
from dataclasses import dataclass

from optimizer.core import errors

# Sent with answers that must not be tried again by itself; the OpenAI clients honour it on any status.
DO_NOT_RETRY = ((b"x-should-retry", b"false"),)


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, ready to be written in either protocol."""

    status: int
    message: str
    kind: str  # OpenAI's "type"
    code: str | None = None
    param: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def openai(self) -> bytes:
        """`{"error": {...}}`, the shape of every error under /v1."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def ollama(self) -> bytes:
        """`{"error": "sentence"}`, the shape of every error under /api."""
        return json.dumps({"error": self.message}).encode()


class HttpError(Exception):
    """A problem of HTTP itself (route, key, size), raised inside the wire and answered by its boundary."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def not_found(path: str) -> HttpError:
    return HttpError(Problem(404, f"unknown path {path}", "invalid_request_error", "unknown_url"))


def method_not_allowed(method: str, allowed: str) -> HttpError:
    message = f"method {method} is not allowed here; use {allowed}"
    headers = ((b"allow", allowed.encode()),)
    return HttpError(Problem(405, message, "invalid_request_error", "method_not_allowed", headers=headers))


def unauthorized() -> HttpError:
    """The same answer for every kind of wrong key; it never repeats what was sent."""
    message = "missing or invalid API key; send it as 'Authorization: Bearer KEY'"
    headers = ((b"www-authenticate", b'Bearer realm="narrowgauge"'),)
    return HttpError(Problem(401, message, "invalid_request_error", "invalid_api_key", headers=headers))


def too_large(limit_bytes: int) -> HttpError:
    message = f"the request body is larger than {limit_bytes} bytes"
    return HttpError(Problem(413, message, "invalid_request_error", "request_too_large"))


def unsupported_encoding(name: str) -> HttpError:
    message = f"content-encoding '{name}' is not supported; send the body as it is"
    return HttpError(Problem(415, message, "invalid_request_error", "unsupported_encoding"))


def forbidden(message: str, code: str) -> HttpError:
    return HttpError(Problem(403, message, "invalid_request_error", code))


def _retry_after(seconds: float) -> tuple[bytes, bytes]:
    """Whole seconds, rounded up, at least 1 (RFC 9110, 10.2.3 has no fractions)."""
    whole = max(1, math.ceil(seconds)) if math.isfinite(seconds) else 60
    return b"retry-after", str(whole).encode()


_REQUEST_ERRORS: tuple[tuple[type[errors.RequestError], int, str | None], ...] = (
    (errors.ModelNotFound, 404, "model_not_found"),
    (errors.ContextOverflow, 400, "context_length_exceeded"),
    (errors.UnsupportedFeature, 400, "unsupported_feature"),
    (errors.RequestError, 400, "invalid_request"),
)
_REFUSALS: tuple[tuple[type[errors.Refused], int, str, str], ...] = (
    (errors.AgentLimit, 429, "rate_limit_error", "agent_limit"),
    (errors.DeadlineUnreachable, 503, "server_error", "deadline_unreachable"),
    (errors.IntakePaused, 503, "server_error", "intake_paused"),
    (errors.Refused, 503, "server_error", "system_full"),
)
_BACKEND_ERRORS: tuple[tuple[type[errors.BackendError], int, str], ...] = (
    (errors.BackendUnavailable, 503, "backend_unavailable"),
    (errors.ModelFileMissing, 503, "model_file_missing"),
    (errors.LoadFailed, 502, "load_failed"),
    (errors.BackendError, 502, "generation_failed"),
)


def problem_of(error: Exception) -> Problem | None:
    """The answer to an error of the tree; None for anything else, which is a bug to be logged (`internal`)."""
    if isinstance(error, HttpError):
        return error.problem
    message = str(error)
    if isinstance(error, errors.RequestError):
        for kind, status, code in _REQUEST_ERRORS:
            if isinstance(error, kind):
                return Problem(status, message, "invalid_request_error", code, error.param)
    if isinstance(error, errors.Refused):
        for refusal, status, type_, code in _REFUSALS:
            if isinstance(error, refusal):
                return Problem(status, message, type_, code, headers=(_retry_after(error.retry_after_s),))
    if isinstance(error, errors.BackendError):
        for failure, status, code in _BACKEND_ERRORS:
            if isinstance(error, failure):
                return Problem(status, message, "server_error", code)
    if isinstance(error, errors.Cancelled):
        return Problem(503, message or "the request was cancelled", "server_error", "cancelled", headers=DO_NOT_RETRY)
    return None


def internal(request_id: str) -> Problem:
    """Our own fault: no detail, only the id under which the log has it."""
    return Problem(500, f"internal error; the log has it under {request_id}", "server_error", "internal_error")
