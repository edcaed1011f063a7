"""WebSocket routes of the dashboard."""

from typing import Any

from django.urls import path, re_path

from dashboard.consumers import LiveConsumer


async def nowhere(scope: Any, receive: Any, send: Any) -> None:
    """Refuses the handshake (403): Channels would raise, and the server log a traceback."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [path("ws/live", LiveConsumer.as_asgi()), re_path(r"", nowhere)]
