"""A tiny in-process ASGI client: whole answers, and live streams that a test can read step by step or leave."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of an SSE body; "[DONE]" stays a string, comments are left out."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def comments(self) -> list[str]:
        return [line[2:] for line in self.body.decode().split("\n") if line.startswith(": ")]

    def lines(self) -> list[Any]:
        """The objects of an NDJSON body."""
        return [json.loads(line) for line in self.body.decode().splitlines()]


def _scope(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}


def _encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()


@dataclass
class Live:
    """A request under way. `left` is what the application sees when the client goes."""

    task: "asyncio.Task[None]"
    incoming: "asyncio.Queue[dict[str, Any]]"
    outgoing: "asyncio.Queue[dict[str, Any]]"
    received: list[dict[str, Any]] = field(default_factory=list)

    async def message(self) -> dict[str, Any]:
        """The next ASGI message from the application."""
        got = await asyncio.wait_for(self.outgoing.get(), 5)
        self.received.append(got)
        return got

    async def leave(self) -> None:
        """Disconnect, and wait until the application has let go."""
        self.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(self.task, 5)

    async def finish(self) -> Answer:
        """The whole answer, what was read before included."""
        await asyncio.wait_for(self.task, 5)
        while not self.outgoing.empty():
            self.received.append(self.outgoing.get_nowait())
        start, *rest = self.received
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in rest))


class Client:
    """Calls one application, with a key unless told otherwise."""

    def __init__(self, app: Any, key: str = "good-key") -> None:
        self.app = app
        self.key = key

    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> Live:
        """Start a request and return at once."""
        used = self.key if key is None else key
        sent = {**({"authorization": f"Bearer {used}"} if used else {}), **(headers or {})}
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        incoming.put_nowait({"type": "http.request", "body": _encoded(body), "more_body": False})
        task = asyncio.ensure_future(self.app(_scope(method, path, sent), incoming.get, outgoing.put))
        return Live(task, incoming, outgoing)

    async def __call__(self, method: str, path: str, body: Any = None, **rest: Any) -> Answer:
        return await self.open(method, path, body, **rest).finish()

    async def get(self, path: str, **rest: Any) -> Answer:
        return await self("GET", path, **rest)

    async def post(self, path: str, body: Any = None, **rest: Any) -> Answer:
        return await self("POST", path, body, **rest)
