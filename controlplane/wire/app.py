"""The bare ASGI application of the two compatible protocols: routes, keys, CORS, and the boundary for every error.

Rule: no Django and no ORM on this path (DESIGN.md: a Django view costs 1.8 ms a request, this a fraction). The order
is route, key, body: a wrong key is refused before the body is read.
Must not know: where keys are stored, how the engine works, who serves the other paths.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.wire import errors, ollama, openai
from controlplane.wire.auth import AgentFor, authenticate
from controlplane.wire.call import Call
from controlplane.wire.cors import DEFAULT_ORIGINS, Origins
from controlplane.wire.delivery import Pace
from controlplane.wire.http import ClientLeft, Exchange, Headers, Receive, Scope, Send, merged_headers
from optimizer.core.errors import BackendUnavailable
from optimizer.ports import Engine

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024
Provider = Callable[[], Engine]
Endpoint = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """Endpoints by method. `open_methods` need no key. `prefix` routes hand the rest of the path to the endpoint."""

    methods: Mapping[str, Endpoint]
    open_methods: frozenset[str] = frozenset()
    prefix: bool = False

    @property
    def allow(self) -> str:
        return ", ".join([*self.methods, "OPTIONS"])


def _get(endpoint: Endpoint, open_methods: Sequence[str] = ("HEAD",), prefix: bool = False) -> Route:
    return Route({"GET": endpoint, "HEAD": endpoint}, frozenset(open_methods), prefix)


def _post(endpoint: Endpoint) -> Route:
    return Route({"POST": endpoint})


async def healthz(call: Call) -> None:
    """200 only when a model can be served; else 503 with the reason."""
    try:
        reason = call.engine.unready()
        backend = {"backend": call.engine.backend_name, "simulated": call.engine.simulated}
    except BackendUnavailable as error:
        reason, backend = str(error) or "starting", {}
    if reason:
        body = {"status": "unready", "reason": reason, "version": call.version, **backend}
        await call.exchange.respond(503, json.dumps(body).encode(), [(b"retry-after", b"2")])
        return
    await call.exchange.respond(200, json.dumps({"status": "ready", "version": call.version, **backend}).encode())


async def livez(call: Call) -> None:
    """200 as long as this process answers at all."""
    await call.exchange.respond(200, json.dumps({"status": "alive", "version": call.version}).encode())


_ALWAYS = ("GET", "HEAD")
ROUTES: Mapping[str, Route] = {
    "/": _get(ollama.root, _ALWAYS),
    "/livez": _get(livez, _ALWAYS),
    "/healthz": _get(healthz, _ALWAYS),
    "/v1/models": _get(openai.models, ()),
    "/v1/models/": _get(openai.model, (), prefix=True),
    "/v1/chat/completions": _post(openai.chat_completions),
    "/v1/completions": _post(openai.completions),
    "/v1/embeddings": _post(openai.embeddings),
    "/api/version": _get(ollama.version, _ALWAYS),
    "/api/tags": _get(ollama.list_tags),
    "/api/ps": _get(ollama.list_running, ()),
    "/api/show": _post(ollama.show_model),
    "/api/chat": _post(ollama.chat),
    "/api/generate": _post(ollama.generate),
    "/api/embed": _post(ollama.embed),
    "/api/embeddings": _post(ollama.embeddings),
    "/api/pull": _post(ollama.managed),
    "/api/push": _post(ollama.managed),
    "/api/create": _post(ollama.managed),
    "/api/copy": _post(ollama.managed),
    "/api/delete": Route({"DELETE": ollama.managed}),
    "/api/blobs/": Route({"POST": ollama.managed, "HEAD": ollama.managed}, prefix=True),
}
_PREFIXES = tuple(path for path, route in ROUTES.items() if route.prefix)


def _under(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def _find(path: str) -> tuple[Route, str]:
    """The route of a path, and the rest of the path. Raises HttpError 404; no redirects for a trailing slash."""
    route = ROUTES.get(path)
    if route is not None and not route.prefix:
        return route, ""
    for prefix in _PREFIXES:
        if path.startswith(prefix) and len(path) > len(prefix):
            return ROUTES[prefix], path[len(prefix) :]
    raise errors.not_found(path[:200])


def _prefers_html(accept: str) -> bool:
    """True for browsers: text/html is named, with no lower weight than plain text or JSON."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= max(weights.get("text/plain", 0.0), weights.get("application/json", 0.0))


class WireApp:
    """ASGI application for the `http` scopes that `handles` claims.

    `engine` is the engine, or a callable that returns it or raises BackendUnavailable while it starts. `agent_for`
    finds the agent of a key in memory; it is called for every request and must not block.
    """

    def __init__(
        self,
        engine: Engine | Provider,
        agent_for: AgentFor,
        version: str,
        *,
        allowed_origins: Sequence[str] = DEFAULT_ORIGINS,
        max_body_bytes: int = MAX_BODY_BYTES,
        early_headers_s: float = 2.0,
        keep_alive_s: float = 10.0,
    ) -> None:
        self._provider: Provider = engine if callable(engine) else lambda: engine
        self._agent_for = agent_for
        self._version = version
        self._origins = Origins(allowed_origins)
        self._max_body_bytes = max_body_bytes
        self._pace = Pace(early_headers_s, keep_alive_s)

    @staticmethod
    def handles(path: str, method: str, headers: Headers) -> bool:
        """True if this application answers the request; `/` only when the caller does not prefer HTML."""
        if path == "/":
            accept = merged_headers(headers).get(b"accept", b"").decode("latin-1")
            return method in ("GET", "HEAD") and not _prefers_html(accept)
        return _under(path, "/v1") or _under(path, "/api") or path in ("/healthz", "/livez")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            await self._guarded(exchange)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.client_left or (task is not None and task.uncancel() > 0):
                raise  # the server stops; a client that left is no error
        finally:
            await exchange.unwatch()

    async def _guarded(self, exchange: Exchange) -> None:
        """The process boundary: whatever happens in an endpoint becomes one answer, or the end of a stream."""
        try:
            await self._serve(exchange)
        except ClientLeft:
            raise
        except Exception as error:
            problem = errors.problem_of(error)
            if problem is None:
                logger.exception("%s %s failed (%s)", exchange.method, exchange.path, exchange.request_id)
                problem = errors.internal(exchange.request_id)
            await _fail(exchange, problem)

    async def _serve(self, exchange: Exchange) -> None:
        origin = exchange.header(b"origin")
        if origin:
            exchange.extra_headers = self._origins.headers(origin)
        route, argument = _find(exchange.path)
        if exchange.method == "OPTIONS":
            await self._options(exchange, origin, route)
            return
        endpoint = route.methods.get(exchange.method)
        if endpoint is None:
            raise errors.method_not_allowed(exchange.method[:20], route.allow)
        agent = ""
        if exchange.method not in route.open_methods:
            agent = authenticate(exchange.header(b"authorization"), self._agent_for).slug
        call = Call(exchange, self._provider, agent, argument, self._version, self._pace, self._max_body_bytes)
        await endpoint(call)

    async def _options(self, exchange: Exchange, origin: str, route: Route) -> None:
        """A CORS preflight (it carries no key), or a plain question for the methods."""
        if not origin or not exchange.header(b"access-control-request-method"):
            await exchange.respond(204, b"", [(b"allow", route.allow.encode())])
            return
        if not self._origins.allows(origin):
            raise errors.forbidden("pages of this origin may not call this server", "origin_not_allowed")
        await exchange.respond(204, b"", self._origins.preflight(route.allow))


async def _fail(exchange: Exchange, problem: errors.Problem) -> None:
    """Answer with a problem in the path's protocol; in a stream, as its last piece."""
    if not exchange.headers_sent:
        body = problem.openai() if _under(exchange.path, "/v1") else problem.ollama()
        await exchange.respond(problem.status, body, problem.headers)
    elif exchange.render_failure is not None and not exchange.ended:
        await exchange.end(exchange.render_failure(problem))
