"""What the web half needs of an engine, wherever that engine runs: the whole of it, and nothing else.

Rule: pages, APIs and wire protocols use a `Front` (they find it as `scope["service"]`) and never reach behind it. In
one process the `Service` is the front and its `Desk` answers at once; scaled out, `link.remote.RemoteFront` asks the
engine's process through Redis. What a desk is asked and what it answers are plain values, so that they can travel.
Must not know: Redis, or how an engine works.
"""

from collections.abc import Callable
from typing import Any, Protocol

from controlplane.control import Done
from controlplane.tables import Tables
from optimizer.core.quota import Use
from optimizer.core.request import AgentProfile
from optimizer.ports import Engine, Record


class Desk(Protocol):
    """Questions about the running engine, and orders to it. Each raises BackendUnavailable when no engine answers."""

    async def snapshot(self) -> dict[str, Any]:
        """The whole picture of this moment (snapshot.py)."""
        ...

    async def steering(self) -> dict[str, Any]:
        """What people have set by hand: intake, pins, paused agents."""
        ...

    async def act(self, action: str, target: str, actor: str) -> Done:
        """Carry one of `control.Action` out. Raises NotHere when its target is not there."""
        ...

    async def waiting(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """The oldest waiting requests, at most so many, and how many wait in all."""
        ...

    async def record(self, request_id: str) -> Record | None:
        """A request that ended a moment ago and may not be in the database yet."""
        ...

    async def cache(self) -> dict[str, Any]:
        """What the answer cache holds in memory, and how look-ups ended."""
        ...

    async def use_of(self, agent: str) -> Use:
        """What an agent has taken of its own limits."""
        ...

    async def revise(self, agent: str, tier: str, good: bool, before: bool | None) -> None:
        """Take a caller's word on an answer into the agent's history; `before`: what was said of it earlier."""
        ...

    async def first_frame(self) -> str:
        """The live picture with its history, for a page that opens."""
        ...

    async def metrics(self) -> str:
        """The measured series in Prometheus' text format."""
        ...


class Front(Protocol):
    """One process's way to the engine, with what it keeps in memory itself."""

    @property
    def engine(self) -> Engine:
        """Where requests go. Raises BackendUnavailable while there is none."""
        ...

    @property
    def desk(self) -> Desk: ...

    @property
    def tables(self) -> Tables:
        """Agents, keys, thresholds, catalogue. Raises BackendUnavailable while they are being read."""
        ...

    @property
    def backend_name(self) -> str:
        """ollama | llamacpp | simulated"""
        ...

    def agent_for(self, token: str) -> AgentProfile | None:
        """The agent a bearer token speaks for; notes that its key was used."""
        ...

    def key_used(self, prefix: str, at: float) -> None:
        """Note the use of a key, in seconds since the epoch."""
        ...

    def tasks_changed(self) -> None:
        """Durable tasks were stored or cancelled here: what runs them may look at once."""
        ...

    async def in_database(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run ORM work off the loop and return its result."""
        ...

    async def look(self) -> None:
        """Take up changes of the stored state made elsewhere, in this process."""
        ...

    async def refresh(self) -> None:
        """Take up a change of the stored state made here, in this process and in the engine, before it returns."""
        ...

    async def flush(self) -> None:
        """Have everything written that waits in buffers, here and in the engine."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
