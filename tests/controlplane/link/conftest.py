"""Both ends of the link in one loop, over a real Redis, with a scripted engine behind."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from controlplane.link.connection import Names, connect
from optimizer.core.request import AgentProfile
from tests.fake_engine import FakeEngine
from tests.scaled import RedisServer


class StubFront:
    """A `front.Front` around a scripted engine."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        self.desk = SimpleNamespace()
        self.tables = SimpleNamespace(agents={"tester": AgentProfile("tester", "default")})
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1

    async def flush(self) -> None:
        pass


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.kill()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(redis_server.url)
    yield client
    await client.aclose()


@pytest.fixture
def names() -> Names:
    """A node group of the test's own."""
    return Names(uuid4().hex)
