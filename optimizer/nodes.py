"""The nodes of one engine: a fleet that decides for all of them, and a Node each that carries its part out.

Rule: what happens goes to the fleet, what it commands goes to the node it names. One node is a fleet of one.
Must not know: callers, the cache, or which backends there are.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimizer.core.errors import BackendError
from optimizer.core.events import Event, Resident
from optimizer.core.fleet import Fleet
from optimizer.core.forecast import View
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import Catalogue
from optimizer.flight import Home
from optimizer.journal import Journal
from optimizer.node import Node
from optimizer.ports import Backend, ModelInfo


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node is to run. `own` are thresholds that hold there only: its memory, its slots."""

    name: str
    backend: Backend
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node at one moment. `state` is ready | lost | draining | drained; `reason` says why it is lost."""

    name: str
    state: str
    reason: str
    first_slot: int  # its slots are numbered from here among all nodes'
    view: View


def sites(backend: Backend | Sequence[Site]) -> list[Site]:
    """A single backend is a site of its own name."""
    return list(backend) if isinstance(backend, Sequence) else [Site(backend.name, backend)]


class Nodes:
    """Every node by name, in the order of the sites."""

    def __init__(
        self,
        places: Sequence[Site],
        home: Home,
        journal: Journal,
        *,
        thresholds: Thresholds,
        catalogue: Catalogue,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._own = {site.name: site.own for site in places}
        limits = {site.name: changed(thresholds, site.own) for site in places}
        self.fleet = Fleet(limits, catalogue)
        self._by_name = {
            site.name: Node(
                site.name,
                site.backend,
                home,
                journal,
                self.tell,
                thresholds=limits[site.name],
                catalogue=catalogue,
                clock=clock,
            )
            for site in places
        }
        self._number_slots(limits)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    async def start(self) -> None:
        """Bring every node up; those that do not answer yet are waited for. Raises ModelFileMissing."""
        await asyncio.gather(*(node.start() for node in self))

    async def stop(self) -> None:
        """Cancel everything that runs."""
        await asyncio.gather(*(node.stop() for node in self))

    async def close(self) -> None:
        """Release the backends."""
        await asyncio.gather(*(node.backend.close() for node in self))

    def tell(self, event: Event, node: str = "") -> None:
        """Something happened, at `node` or outside: have it decided and carried out."""
        now = self._clock()
        for name, command in self.fleet.handle(event, now, node):
            self._by_name[name].obey(command, now)

    def reconfigure(
        self,
        thresholds: Thresholds,
        catalogue: Catalogue,
        own: Mapping[str, Mapping[str, Any]],
        catalogues: Mapping[str, Catalogue],
    ) -> None:
        """New tables take effect at once. `own` and `catalogues` are of single nodes; others keep or share."""
        self._own.update({name: values for name, values in own.items() if name in self._own})
        limits = {node.name: changed(thresholds, self._own[node.name]) for node in self}
        self._number_slots(limits)
        for node in self:
            node.reconfigure(limits[node.name], catalogues.get(node.name, catalogue))

    def load_times_s(self, now: float) -> dict[str, float]:
        """Each node's clock of load time (node.py)."""
        return {node.name: node.load_time_s(now) for node in self}

    def unready(self) -> str:
        """Why no model can be served anywhere; "" when one can."""
        reasons = [node.not_ready for node in self]
        return "" if "" in reasons else "; ".join(dict.fromkeys(reasons))

    async def installed(self) -> dict[str, Sequence[ModelInfo]]:
        """Models on disk, of every node that answers. Raises the first one's BackendError when none does."""
        return dict(await self._ask(lambda backend: backend.models()))

    async def residents(self) -> list[Resident]:
        """Models in memory somewhere, each once."""
        found = await self._ask(lambda backend: backend.residents())
        return list({resident.model: resident for _, some in reversed(found) for resident in some}.values())

    async def _ask(self, question: Callable[[Backend], Any]) -> list[tuple[str, Any]]:
        asked = [node for node in self if not node.not_ready] or list(self)
        answers = await asyncio.gather(*(question(node.backend) for node in asked), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, BackendError):
                raise answer
        good = [(node.name, a) for node, a in zip(asked, answers, strict=True) if not isinstance(a, BaseException)]
        if not good:
            raise next(answer for answer in answers if isinstance(answer, BackendError))
        return good

    def views(self, now: float) -> list[NodeView]:
        """Every node as a screen shows it."""
        return [self._view(node, self.fleet.nodes[node.name].snapshot(now)) for node in self]

    def _view(self, node: Node, view: View) -> NodeView:
        busy = view.waiting or any(slot.job_id for slot in view.slots)
        state = "lost" if node.not_ready else "ready" if not view.drained else "draining" if busy else "drained"
        return NodeView(node.name, state, node.not_ready, node.first_slot, view)

    def _number_slots(self, limits: Mapping[str, Thresholds]) -> None:
        first = 0
        for node in self:
            node.first_slot = first
            first += limits[node.name].slots
