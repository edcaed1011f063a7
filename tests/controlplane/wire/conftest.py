"""A wire application over a scripted engine."""

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.wire import WireApp
from optimizer.core.request import AgentProfile
from tests.asgi_client import Client
from tests.fake_engine import FakeEngine

AGENT = AgentProfile("scribe-01", "default")


def agent_for(key: str) -> AgentProfile | None:
    return AGENT if key == "good-key" else None


Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Connect:
    """`connect(engine, **options)`: a client of a new application."""

    def make(engine: Any, **options: Any) -> Client:
        return Client(WireApp(engine, agent_for, "0.1.0", **options))

    return make


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(connect: Connect, engine: FakeEngine) -> Client:
    """A client of an engine that says everything back."""
    return connect(engine)
