"""One authenticated call: what every endpoint of either protocol works with.

Rule: endpoints read bodies and build Requests only through a Call, so limits and hints hold everywhere.
Must not know: protocols' fields and shapes.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.wire.delivery import Pace
from controlplane.wire.hints import read_hints
from controlplane.wire.http import Exchange
from controlplane.wire.names import resolve
from controlplane.wire.payload import Fields, parse_json
from optimizer.core.errors import InvalidRequest
from optimizer.core.request import Kind, Message, Request
from optimizer.ports import Engine

_QUICK_BYTES = 128 * 1024  # parsed within a millisecond or two


@dataclass(frozen=True, slots=True)
class Call:
    """An exchange, who made it, and the engine to ask. `agent` is "" on routes that need no key."""

    exchange: Exchange
    provider: Callable[[], Engine]
    agent: str
    argument: str  # the rest of the path, where a route takes one
    version: str
    pace: Pace
    max_body_bytes: int

    @property
    def engine(self) -> Engine:
        """The engine. Raises BackendUnavailable while it starts."""
        return self.provider()

    async def fields(self) -> Fields:
        """The JSON object in the body. Raises InvalidRequest, HttpError 413."""
        data = await self.exchange.body(self.max_body_bytes)
        if not data.strip():
            raise InvalidRequest("the request has no body; send a JSON object")
        if len(data) < _QUICK_BYTES:
            return Fields(parse_json(data))
        return Fields(await asyncio.to_thread(parse_json, data))  # other requests go on meanwhile

    def wanted(self, asked: str) -> str:
        """What `Request.wanted` says for the model a client named. Raises ModelNotFound."""
        return resolve(asked, self.engine.catalogue())

    def request(
        self, kind: Kind, wanted: str, messages: Sequence[Message] = (), *, part: int | None = None, **rest: Any
    ) -> Request:
        """A Request with the caller's hints; `part` tells several requests of one call apart."""
        hints = read_hints(self.exchange)
        return Request(
            id=self.exchange.request_id if part is None else f"{self.exchange.request_id}-{part}",
            agent=self.agent,
            kind=kind,
            messages=tuple(messages),
            wanted=wanted,
            task=hints.task,
            priority=hints.priority,
            deadline_s=hints.deadline_s,
            conversation=hints.conversation,
            cache_read=hints.cache_read,
            cache_write=hints.cache_write,
            **rest,
        )
