"""A connection to Redis that gives up soon and says so, and the names of what lies there.

Rule: every call to Redis ends within `TIMEOUT_S`, whatever the network does; who calls decides what a failure means.
Must not know: messages, requests.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

TIMEOUT_S = 2.0
BLOCK_MS = 500  # how long a read waits for news; less than the timeout
AGAIN_S = 0.2  # pause after a failure
AWAY = (RedisError, OSError)  # what a Redis raises that cannot be reached, or not be used


def connect(url: str) -> Redis:
    """A pool of connections; nothing is opened before the first call."""
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S / 2,
        # Once, at once, for a pooled connection that has died meanwhile; else the callers' own loops try again.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel loops that speak to Redis and wait for their end, whatever it is. Not for a task that has to clean up.

    Again and again: redis-py sends through `asyncio.wait_for`, which in Python 3.11 can swallow a cancel.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of one node group; groups on one Redis do not see each other."""

    group: str

    @property
    def engine(self) -> str:
        """The stream that the active engine reads."""
        return f"narrowgauge:{self.group}:engine"

    @property
    def lease(self) -> str:
        return f"narrowgauge:{self.group}:lease"

    @property
    def epoch(self) -> str:
        return f"narrowgauge:{self.group}:epoch"

    def web(self, web: str) -> str:
        """The stream that one web process reads."""
        return f"narrowgauge:{self.group}:web:{web}"
