"""One HTTP exchange over ASGI: headers, the body within its limit, answers, streams, and the client that leaves.

Rule: an answer is started once and ended once; every answer carries `x-request-id`. Nothing is buffered on the way
out, so a slow reader holds back only its own generation. (Daphne's `send` never blocks: there an unread answer
waits in the socket's buffer, bounded by the answer's length.)
Must not know: the two protocols, the engine.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from secrets import token_hex
from typing import Any

from controlplane.wire.errors import Problem, too_large, unsupported_encoding
from optimizer.core.errors import InvalidRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
_UNSAFE = re.compile(r"[^\x20-\x7e]+")


class ClientLeft(Exception):
    """The client closed the connection before its request was complete."""


def header_value(text: str, limit: int = 200) -> bytes:
    """A text as a header may hold it: printable ASCII, one line, at most `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = _UNSAFE.sub("?", text)
    return text[:limit].strip().encode("ascii")


class Exchange:
    """A request and the answer to it. Created per request by `WireApp`."""

    __slots__ = (
        "_receive",
        "_send",
        "_watched",
        "_watcher",
        "client_left",
        "ended",
        "extra_headers",
        "headers",
        "headers_sent",
        "method",
        "path",
        "render_failure",
        "request_id",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = merged_headers(scope["headers"])
        self.request_id = f"req-{token_hex(16)}"
        self.headers_sent = False
        self.client_left = False
        self.extra_headers: list[tuple[bytes, bytes]] = []  # for every answer: CORS
        # Set by a stream: how a failure looks once the status is out.
        self.render_failure: Callable[[Problem], bytes] | None = None
        self._receive, self._send = receive, send
        self.ended = False
        self._watcher: asyncio.Task[None] | None = None
        self._watched: asyncio.Task[Any] | None = None

    def header(self, name: bytes) -> str:
        """A request header's value, "" if absent. Repeated headers are joined by a comma."""
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body. Raises HttpError 413 and 415, InvalidRequest, ClientLeft."""
        encoding = self.header(b"content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise unsupported_encoding(header_value(encoding, 40).decode())
        declared = self.header(b"content-length").strip()
        if declared:
            if not (declared.isascii() and declared.isdigit()):
                raise InvalidRequest("the Content-Length header is not a number")
            if len(declared) > 15 or int(declared) > limit_bytes:
                raise too_large(limit_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            if size > limit_bytes:
                raise too_large(limit_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Send the status and headers; `write` follows."""
        self.headers_sent = True
        fields = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode())]
        fields += self.extra_headers
        fields += headers
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body; empty pieces are dropped."""
        if chunk:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last piece."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def respond(self, status: int, body: bytes, headers: Headers = (), content_type: bytes = JSON) -> None:
        """A whole answer at once. HEAD gets the headers alone."""
        length = (b"content-length", str(len(body)).encode())
        if status == 204:
            await self.start(status, content_type, headers)
        else:
            await self.start(status, content_type, [*headers, length])
        await self.end(b"" if self.method == "HEAD" else body)

    def watch(self) -> None:
        """From here on a client that leaves cancels the current task, and with it all work on the request."""
        if self._watcher is None:
            self._watched = asyncio.current_task()
            self._watcher = asyncio.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.ended:
            return  # servers report the end of every exchange this way
        self.client_left = True
        assert self._watched is not None
        self._watched.cancel()

    async def unwatch(self) -> None:
        """The exchange is over; a disconnect no longer means anything."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None


def merged_headers(raw: Headers) -> dict[bytes, bytes]:
    """Header fields by lower-case name; repeated ones joined as RFC 9110, 5.3 says."""
    merged: dict[bytes, bytes] = {}
    for name, value in raw:
        key = name.lower()
        merged[key] = merged[key] + b", " + value if key in merged else value
    return merged
