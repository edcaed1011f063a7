"""The wire over a fake engine under a real Daphne: `python -m tests.wire_server` prints its port and serves.

What the last message says decides the answer: "count" tells how many requests are open, "forever" streams until it
is closed, anything else is said back. `/bare` is an ASGI application that does nothing, to compare with. Arguments
are the fields of `intake.Patience`.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from daphne.server import Server

from controlplane.wire import WireApp
from controlplane.wire.app import MAX_BODY_BYTES
from controlplane.wire.intake import Patience, bound_bodies
from optimizer.core.request import AgentProfile, Kind, Request
from optimizer.ports import Delta, Reply
from tests.fake_engine import FakeEngine, answering, started

AGENT = AgentProfile("scribe-01", "default")
TICK_S = 0.01


class ServedEngine(FakeEngine):
    """A FakeEngine that can also stream without end, in real time."""

    async def submit(self, request: Request) -> AsyncGenerator[Reply, None]:
        wish = "" if request.kind is Kind.EMBED else request.messages[-1].content
        if wish == "count":
            for step in answering(str(self.running)):
                yield step  # type: ignore[misc]
        elif wish.startswith("forever"):
            self.running += 1
            try:
                yield started()
                while True:
                    yield Delta(wish)
                    await asyncio.sleep(TICK_S)
            finally:
                self.running -= 1
        else:
            async with aclosing(super().submit(request)) as replies:
                async for item in replies:
                    yield item
        self.requests.clear()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least an ASGI application can do with a request."""
    while (await receive()).get("more_body"):
        pass
    body = b'{"hello": "world"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def application() -> Any:
    wire = WireApp(ServedEngine(), lambda key: AGENT if key == "good-key" else None, "0.1.0")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (bare if scope["path"] == "/bare" else wire)(scope, receive, send)

    return app


class PrintingServer(Server):
    """Says on stdout where it listens."""

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        print(port.getHost().port, flush=True)


if __name__ == "__main__":
    endpoints = ["tcp:port=0:interface=127.0.0.1"]
    patience = Patience(*map(float, sys.argv[1:]))
    server = PrintingServer(
        application(), endpoints=endpoints, ready_callable=lambda: bound_bodies(server, MAX_BODY_BYTES, patience)
    )
    server.run()
