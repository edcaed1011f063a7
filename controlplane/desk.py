"""The desk in the engine's own process: answers what the web asks of the running engine, as plain values.

Rule: on the engine's loop, from memory; see `front.Desk` for what each answer is. It is what `link.server` calls too.
Must not know: HTTP, Redis, or who asks.
"""

import time
from typing import TYPE_CHECKING, Any

from controlplane import exposition
from controlplane.control import ABOUT, Action, Done
from controlplane.snapshot import snapshot
from optimizer.core.quota import Use
from optimizer.ports import Record

if TYPE_CHECKING:
    from controlplane.service import Service


class LocalDesk:
    """A `front.Desk` of one service."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    async def snapshot(self) -> dict[str, Any]:
        return {**snapshot(self._service.runner, time.time()), "storage": self._service.storage}

    async def steering(self) -> dict[str, Any]:
        view, _ = self._service.runner.view()
        return {
            "intake": self._service.control.intake,
            "waiting": view.waiting,
            "running": sum(1 for slot in view.slots if slot.job_id),
            "pinned": [resident.model for resident in view.residents if resident.pinned],
            "paused_agents": list(view.paused_agents),
            "nodes": {node.name: node.state for node in self._service.runner.views()},
            "actions": {action.value: about.of for action, about in ABOUT.items()},
        }

    async def act(self, action: str, target: str, actor: str) -> Done:
        return await self._service.control.act(Action(action), target, actor)

    async def waiting(self, most: int) -> tuple[list[dict[str, Any]], int]:
        runner = self._service.runner
        _, now = runner.view()
        jobs = runner.scheduler.waiting()
        rows = [
            {"id": job.id, "agent": job.agent, "model": job.model, "waited_s": now - arrived}
            for job, arrived in jobs[:most]
        ]
        return rows, len(jobs)

    async def record(self, request_id: str) -> Record | None:
        return self._service.runner.journal.find(request_id)

    async def cache(self) -> dict[str, Any]:
        runner = self._service.runner
        cache = runner.pipeline.cache
        entries = cache.entries()
        vectors = sum(entry.embedding.nbytes for entry in entries if entry.embedding is not None)
        texts = sum(len(entry.question) + len(entry.text) + len(entry.thinking) for entry in entries)
        return {
            "entries": len(cache),
            "most": cache.max_entries,
            "ttl_s": cache.ttl_s,
            "bytes": texts + vectors,
            "hits": sum(entry.hits for entry in entries),
            "semantic": sum(1 for entry in entries if entry.embedding is not None),
            "on": runner.pipeline.thresholds.cache_enabled,
            "embedder": runner.pipeline.embed is not None,
            "outcomes": dict(runner.journal.cache),
        }

    async def use_of(self, agent: str) -> Use:
        return self._service.runner.use_of(agent)

    async def revise(self, agent: str, tier: str, good: bool, before: bool | None) -> None:
        self._service.runner.pipeline.selector.outcomes.revise(agent, tier, good, before)

    async def first_frame(self) -> str:
        service = self._service
        return service.publisher.first_frame(service.runner, time.time(), service.control.intake)

    async def metrics(self) -> str:
        return exposition.of_engine(self._service.runner, self._service.records, self._service.tasks)
