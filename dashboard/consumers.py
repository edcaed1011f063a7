"""The live channel: frames to one browser, at the browser's own pace.

Rule: only for signed-in people who may look, only from our own pages. A frame is sent when the browser has said that
it drew the one before; until then only the latest frame is kept, so a slow browser loses frames, never the truth.
Must not know: what is in a frame.
"""

import time
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest

from controlplane.front import Front
from controlplane.publisher import GROUP
from dashboard.access import LOOK
from optimizer.core.errors import BackendUnavailable

NOT_SIGNED_IN = 4401
NOT_ALLOWED = 4403
STARTING = 4503
WHOLE = "whole"  # what a browser says that has missed too much; anything else means "drawn"
WHOLE_EVERY_S = 2.0
LOOK_AGAIN_S = 30.0  # how soon a sign-out or a lost role ends the channel


class LiveConsumer(AsyncWebsocketConsumer):
    """`/ws/live`: first the whole picture with the charts' history, then a frame a second."""

    _drawn = True
    _latest: str | None = None
    _checked = _whole_at = 0.0

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As Channels does, less its look at the database's connections in a thread before every message, which costs
        more than the message. Only `_still_allowed` asks the database, and the service's thread looks after that.
        """
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        if not _own_page(self.scope):
            await self.close()  # before the handshake: a refused request, not a closed channel
            return
        await self.accept()
        if await self._still_allowed():
            await self._show_whole()
            await self.channel_layer.group_add(GROUP, self.channel_name)

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """The browser has drawn the last frame, or asks for the whole picture."""
        if time.monotonic() - self._checked > LOOK_AGAIN_S and not await self._still_allowed():
            return
        self._drawn = True
        if text_data == WHOLE and time.monotonic() - self._whole_at > WHOLE_EVERY_S:
            await self._show_whole()
        elif self._latest is not None:
            await self._show(self._latest)

    async def live_frame(self, event: dict[str, Any]) -> None:
        """A new frame from the publisher."""
        self._latest = event["text"]
        if self._drawn:
            await self._show(self._latest)

    async def _show_whole(self) -> None:
        service: Front = self.scope["service"]
        self._whole_at = time.monotonic()
        try:
            text = await service.desk.first_frame()
        except BackendUnavailable:
            await self.close(STARTING)
        else:
            await self._show(text)

    async def _show(self, text: str) -> None:
        self._drawn, self._latest = False, None
        await self.send(text_data=text)

    async def _still_allowed(self) -> bool:
        """Closes if not."""
        self._checked = time.monotonic()
        service: Front = self.scope["service"]
        refusal = await service.in_database(_refusal, self.scope["cookies"].get(settings.SESSION_COOKIE_NAME))
        if refusal is not None:
            await self.close(refusal)
        return refusal is None


def _refusal(session_key: str | None) -> int | None:
    """Why the holder of a session may not look: the code to close with, None if he may.

    Session, user and roles are read anew each time, in one go: Channels' own middleware would keep what the session
    was when the page opened, and a sign-out in another tab would not end the channel.
    """
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = auth.get_user(request)
    if not user.is_authenticated:
        return NOT_SIGNED_IN
    return None if user.has_perm(LOOK) else NOT_ALLOWED


def _own_page(scope: dict[str, Any]) -> bool:
    """Whether the page that opens the channel is ours: cookies are shared by all ports of a host, origins are not."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1")
    return bool(host) and (urlsplit(origin).netloc == host or origin in settings.CSRF_TRUSTED_ORIGINS)
