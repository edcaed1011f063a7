"""A key that was made a moment ago: its first request waits for a look at the stored state instead of being refused.

Rule: only for a token that looks like ours and whose prefix nobody knows. Whoever comes while a look is due shares it,
and looks are `EVERY_S` apart, so a flood of wrong keys costs the database no more than ten small questions a second.
Must not know: protocols, or what a refusal looks like.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from django.db import DatabaseError

from controlplane import keys
from controlplane.front import Front
from optimizer.core.errors import BackendUnavailable

log = logging.getLogger("narrowgauge.newcomers")

EVERY_S = 0.1


class Newcomers:
    """`await let_in(headers)` before a request's key is judged."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._next: asyncio.Task[None] | None = None  # the look that is due and has not begun
        self._began = -EVERY_S  # on the monotonic clock

    async def let_in(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Return at once for a known key or none; else once what is stored has been looked at."""
        token = next((value for name, value in headers if name.lower() == b"authorization"), b"")
        found = keys.parts(token[7:].strip()) if token[:7].lower() == b"bearer " else None
        try:
            if found is None or found[0] in self._front.tables.keys:
                return
        except BackendUnavailable:
            return  # starting; the door itself says so
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        await asyncio.shield(self._next)

    async def _look(self) -> None:
        await asyncio.sleep(self._began + EVERY_S - time.monotonic())
        self._next, self._began = None, time.monotonic()  # whoever comes from here on needs the next one
        try:
            await self._front.look()
        except DatabaseError as error:
            log.warning("a new key cannot be looked up: %s", error)
