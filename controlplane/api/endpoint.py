"""One decorator for every endpoint: method, key and scope, body, errors, request id.

Rule: a view is handed an authenticated `Call` and returns plain data; every error leaves in one shape,
`{"error": {"type", "message", "param"}}`, and anything that is not ours becomes one logged 500.
Must not know: what an endpoint does.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from pydantic import BaseModel, ValidationError

from controlplane.front import Front
from controlplane.keys import Scope
from controlplane.tables import KeyEntry
from controlplane.wire.errors import HttpError, Problem, forbidden, internal, problem_of, too_large, unauthorized
from controlplane.wire.payload import parse_json
from optimizer.core.errors import InvalidRequest, NarrowgaugeError

log = logging.getLogger("narrowgauge.api")

BODY_LIMIT_BYTES = 32 * 1024 * 1024
NO_DATABASE = Problem(
    503,
    "the database does not answer; try again in a moment",
    "server_error",
    "database_unavailable",
    headers=((b"retry-after", b"2"),),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call."""

    request: HttpRequest
    service: Front
    key: KeyEntry
    request_id: str

    @property
    def agent(self) -> str:
        return self.key.agent

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.key.scopes

    @property
    def sees(self) -> str:
        """Whose rows this key may see: its agent's, or "" for everybody's."""
        return "" if self.is_admin else self.agent

    def require_admin(self) -> None:
        """Raises 403 unless the key has the admin scope."""
        if not self.is_admin:
            raise forbidden(
                "this key may not do that; make one with: manage.py agentkey SLUG --scope admin --scope requests",
                "admin_scope_required",
            )

    def data(self) -> bytes:
        """The body as it came. Raises 413."""
        length = self.request.META.get("CONTENT_LENGTH") or "0"
        if length.isdigit() and int(length) > BODY_LIMIT_BYTES:
            raise too_large(BODY_LIMIT_BYTES)
        return self.request.read(BODY_LIMIT_BYTES + 1)

    def body(self, schema: type[BaseModel]) -> Any:
        """The JSON body as `schema`. Raises InvalidRequest that names the first bad field, and 413."""
        data = parse_json(self.data())
        if not isinstance(data, dict):
            raise InvalidRequest("the body must be a JSON object")
        try:
            return schema.model_validate(data, strict=False)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or None
            raise InvalidRequest(f"{field}: {first['msg']}" if field else first["msg"], param=field) from None


View = Callable[..., Awaitable[Any]]


def endpoint(**views: View) -> Callable[..., Awaitable[HttpResponseBase]]:
    """A Django view from one coroutine function per HTTP method: `endpoint(get=..., post=...)`.

    A view returns data (200), `(status, data)`, or a response of its own (streams).
    """
    allowed = ", ".join(sorted(method.upper() for method in views))

    @csrf_exempt  # bearer keys only: a browser never sends one by itself
    async def dispatch(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        request_id = f"req-{uuid4().hex}"
        try:
            response = await _answer(request, request_id, views, allowed, arguments)
        except (HttpError, NarrowgaugeError) as error:
            response = failure(problem_of(error) or internal(request_id))
        except (OperationalError, InterfaceError) as error:
            log.error("%s %s: the database does not answer: %s", request.method, request.path, error)
            response = failure(NO_DATABASE)
        except Exception:
            log.exception("%s %s broke (%s)", request.method, request.path, request_id)
            response = failure(internal(request_id))
        response["x-request-id"] = request_id
        response._has_been_logged = True  # Django's own mark: a refusal is no error, and ours are logged above
        return response

    return dispatch


async def _answer(
    request: HttpRequest, request_id: str, views: dict[str, View], allowed: str, arguments: dict[str, Any]
) -> HttpResponseBase:
    view = views.get((request.method or "").lower())
    if view is None:
        message = f"method {request.method} is not allowed here; use {allowed}"
        headers = ((b"allow", allowed.encode()),)
        raise HttpError(Problem(405, message, "invalid_request_error", "method_not_allowed", headers=headers))
    service: Front = request.scope["service"]  # type: ignore[attr-defined]
    call = Call(request, service, _key(request, service), request_id)
    if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
        raise InvalidRequest("the address contains the character \\u0000")  # PostgreSQL takes it in no text
    result = await view(call, **arguments)
    if isinstance(result, HttpResponseBase):
        return result
    status, data = result if isinstance(result, tuple) else (200, result)
    return HttpResponse(status=status) if data is None else JsonResponse(data, status=status, safe=False)


def _key(request: HttpRequest, service: Front) -> KeyEntry:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    now = time.time()
    key = service.tables.key_for(token.strip(), now) if scheme.lower() == "bearer" else None
    if key is None or key.agent not in service.tables.agents:
        raise unauthorized()
    service.key_used(key.prefix, now)
    return key


def failure(problem: Problem) -> HttpResponse:
    """A problem in this API's shape."""
    error = {"type": problem.code or problem.kind, "message": problem.message, "param": problem.param}
    response = JsonResponse({"error": error}, status=problem.status)
    for name, value in problem.headers:
        response[name.decode()] = value.decode()
    return response
