"""The ASGI application: wire protocols beside Django beside WebSockets, on one port.

Rule: `build` wires them to one service; pages and views find it as `scope["service"]`, never in a global.
Must not know: how the service was made, or which server runs this. Django must be set up before it is imported.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.exceptions import SuspiciousFileOperation
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotFound

from controlplane import VERSION, exposition
from controlplane.front import Front
from controlplane.newcomers import Newcomers
from controlplane.wire.app import WireApp
from controlplane.wire.cors import DEFAULT_ORIGINS
from dashboard.routing import websocket_urlpatterns

Scope = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class StaticFiles(ASGIStaticFilesHandler):
    """Django's, with a path out of the directory not found, as any other that is not there."""

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return await super().get_response_async(request)
        except SuspiciousFileOperation:
            return HttpResponseNotFound()


def build(service: Front) -> Application:
    """The application of one process."""
    origins = (*DEFAULT_ORIGINS, *settings.CORS_ORIGINS)
    wire = WireApp(lambda: service.engine, service.agent_for, VERSION, allowed_origins=origins)
    metrics = exposition.Metrics(service)
    newcomers = Newcomers(service)
    pages = StaticFiles(get_asgi_application())
    sockets = AllowedHostsOriginValidator(CookieMiddleware(URLRouter(websocket_urlpatterns)))

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await newcomers.let_in(scope["headers"])
            if wire.handles(scope["path"], scope["method"], scope["headers"]):
                await wire(scope, receive, send)
            elif scope["path"] == exposition.PATH:
                await metrics(scope, receive, send)
            else:
                await pages({**scope, "service": service}, receive, send)
        elif scope["type"] == "websocket":
            await sockets({**scope, "service": service}, receive, send)

    return application
