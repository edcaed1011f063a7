"""A web process's front of an engine that runs elsewhere: the scaled half of `front.Front`.

Rule: keys, agents and thresholds are in this process's own memory, read from the database twice a second, so that a
revoked key is refused everywhere within a second, engine or no engine. Everything about the running engine is asked of
it. A change made here is in force here and in the engine before `refresh` returns; with no engine there, it takes up
the change when it comes.
Must not know: HTTP or pages.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import DatabaseError, connections
from redis.asyncio import Redis

from controlplane import queries, stores
from controlplane.control import Done
from controlplane.database import in_thread
from controlplane.link.client import LinkClient
from controlplane.link.connection import Names
from controlplane.loops import every
from controlplane.tables import Tables
from optimizer.core.errors import BackendUnavailable
from optimizer.core.quota import Use
from optimizer.core.request import AgentProfile
from optimizer.ports import Engine, Record

log = logging.getLogger("narrowgauge.remote")

TABLES_EVERY_S = 0.5
FLUSH_EVERY_S = 0.5
DATABASE_THREADS = 2
PATIENCE_S = 3.0  # how long a start waits for an engine before it serves without one


class RemoteDesk:
    """A `front.Desk` that asks through the link."""

    def __init__(self, link: LinkClient) -> None:
        self._ask = link.ask

    async def snapshot(self) -> dict[str, Any]:
        return await self._ask("snapshot")

    async def steering(self) -> dict[str, Any]:
        return await self._ask("steering")

    async def act(self, action: str, target: str, actor: str) -> Done:
        return await self._ask("act", action, target, actor)

    async def waiting(self, most: int) -> tuple[list[dict[str, Any]], int]:
        return await self._ask("waiting", most)

    async def record(self, request_id: str) -> Record | None:
        return await self._ask("record", request_id)

    async def cache(self) -> dict[str, Any]:
        return await self._ask("cache")

    async def use_of(self, agent: str) -> Use:
        return await self._ask("use_of", agent)

    async def revise(self, agent: str, tier: str, good: bool, before: bool | None) -> None:
        await self._ask("revise", agent, tier, good, before)

    async def first_frame(self) -> str:
        return await self._ask("first_frame")

    async def metrics(self) -> str:
        return await self._ask("metrics")


class RemoteFront:
    """`await start()` on the loop that serves; `await stop()` before that loop ends."""

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._link = LinkClient(redis, names)
        self.desk = RemoteDesk(self._link)
        self._records = stores.RecordBuffer()  # for the last uses of keys; requests are the engine's to record
        self._tables: Tables | None = None
        self._backend = ""  # whose catalogue the tables hold
        self._database = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
        self._loops: list[asyncio.Task[None]] = []

    @property
    def engine(self) -> Engine:
        return self._link

    @property
    def tables(self) -> Tables:
        if self._tables is None:
            raise BackendUnavailable("Narrowgauge is starting; try again in a moment")
        return self._tables

    @property
    def backend_name(self) -> str:
        """The engine's; before one has spoken, that of the node which ran last."""
        try:
            return self._link.backend_name
        except BackendUnavailable:
            return self._backend

    def agent_for(self, token: str) -> AgentProfile | None:
        return self.tables.agent_for(token, time.time(), self.key_used)

    def key_used(self, prefix: str, at: float) -> None:
        self._records.key_used(prefix, at)

    def tasks_changed(self) -> None:
        """Nothing to do: the engine looks by itself every second (task_runner.py)."""

    async def in_database(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await in_thread(self._database, work, *arguments)

    async def look(self) -> None:
        await self._read_tables()

    async def refresh(self) -> None:
        await self._read_tables()
        try:
            await self._link.ask("refresh")
        except BackendUnavailable as error:
            log.warning("the engine has not heard of a change yet: %s", error)

    async def flush(self) -> None:
        await self._flush_own()
        try:
            await self._link.ask("flush")
        except BackendUnavailable as error:
            log.warning("the engine has not written what it holds: %s", error)

    async def start(self) -> None:
        """Read the tables and look for an engine; serves without one (503) until it comes."""
        await self._link.start()
        await self._link.first_pong(PATIENCE_S)
        await self._first_tables()
        self._loops = [
            asyncio.create_task(every(TABLES_EVERY_S, self._read_tables)),
            asyncio.create_task(every(FLUSH_EVERY_S, self._flush_own)),
        ]

    async def stop(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._link.stop()
        await self._flush_own()
        await self.in_database(connections.close_all)
        self._database.shutdown()
        await self._redis.aclose()

    async def _first_tables(self) -> None:
        while self._tables is None:
            try:
                await self._read_tables()
            except DatabaseError as error:
                log.error("the database does not answer: %s", error)
                await asyncio.sleep(TABLES_EVERY_S)

    async def _read_tables(self) -> None:
        version = await self.in_database(queries.state_version)
        backend = self.backend_name or await self.in_database(_last_backend)
        if self._tables is None or version != self._tables.version or backend != self._backend:
            self._tables = await self.in_database(Tables.load, backend)
            self._backend = backend

    async def _flush_own(self) -> None:
        await self.in_database(self._records.flush)


def _last_backend() -> str:
    node = queries.active_node()
    return node.kind if node else "ollama"
