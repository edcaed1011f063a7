"""What clients may send before the application sees anything: bounded in size and in time.

Daphne hands a request over only when its body is whole, and keeps all of it, key or no key. Here it keeps one byte
more than the limit and drops the rest, so that the application can answer 413 in the protocol's shape and memory stays
bounded. (Closing the connection instead would reset it, and most clients would never see the answer.)

Twisted's own timeout starts anew with every byte, so a client that drips keeps its connection for ever. Here a head
has so many seconds in all, and a body must keep up a pace; what is slower is told 408 and cut.

Rule: nothing else of Daphne changes, but for one header of its own that nobody outside may send.
Must not know: paths, keys.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from daphne.http_protocol import WebRequest
from daphne.server import Server
from twisted.web.http import HTTPChannel

MAX_SOCKET_MESSAGE_BYTES = 64 * 1024  # what a page says over its WebSocket is one word
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """How slow a client may be. A stream of ours may last as long as it takes: that is not the client's doing."""

    idle_s: float = 60.0  # between requests, and before the first
    head_s: float = 20.0  # from a request's first byte to the end of its headers, and for a body to get going
    body_bytes_per_s: float = 8 * 1024.0


def bound_bodies(server: Server, max_bytes: int, patience: Patience = Patience()) -> None:
    """Bound what a running Daphne server takes in; call it from `ready_callable`, before the first connection."""

    class BoundedRequest(WebRequest):
        _kept = _came = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Twisted would read every `curl -d` body a second time as a form, which nobody asks for.
            super().__init__(*args, **{**kwargs, "parsePOSTFormSubmission": False})
            self._began = monotonic()

        def handleContentChunk(self, data: bytes) -> None:
            kept = data[: max_bytes + 1 - self._kept]
            self._kept += len(kept)
            self._came += len(data)
            due = self._began + 2 * patience.head_s + self._came / patience.body_bytes_per_s
            self.channel.setTimeout(max(0.001, due - monotonic()))
            super().handleContentChunk(kept)

        def process(self) -> Any:
            # Daphne would take it for the place that the whole site is mounted at.
            self.requestHeaders.removeHeader(b"daphne-root-path")
            # Daphne would log a traceback and answer 500.
            if not all(map(bytes.isascii, self.requestHeaders.getRawHeaders(b"sec-websocket-protocol", []))):
                self.basic_error(400, b"Bad Request", "Invalid header value")
                return None
            return super().process()

    class BoundedChannel(HTTPChannel):
        _within = False  # a request that is coming in
        _answering = False

        def dataReceived(self, data: bytes) -> None:
            if not (self._within or self._answering):
                self._within = True
                self.setTimeout(patience.head_s)
            super().dataReceived(data)

        def resetTimeout(self) -> None:
            """Not with every byte."""

        def allHeadersReceived(self) -> None:
            super().allHeadersReceived()
            self.setTimeout(patience.head_s)

        def allContentReceived(self) -> None:
            self.timeOut = patience.idle_s  # in force again when the answer has been sent
            self._within, self._answering = False, True
            super().allContentReceived()

        def requestDone(self, request: Any) -> None:
            self._answering = False
            super().requestDone(request)

        def timeoutConnection(self) -> None:
            if self._within:
                self.transport.write(_TOO_SLOW)
            super().timeoutConnection()

    server.http_factory.timeOut = patience.idle_s
    server.http_factory.protocol = BoundedChannel
    build = server.http_factory.buildProtocol

    def build_bounded(address: Any) -> BoundedChannel:
        protocol = build(address)
        protocol.requestFactory = BoundedRequest
        return protocol

    server.http_factory.buildProtocol = build_bounded
    server.ws_factory.setProtocolOptions(
        maxMessagePayloadSize=MAX_SOCKET_MESSAGE_BYTES, maxFramePayloadSize=MAX_SOCKET_MESSAGE_BYTES
    )
