"""The whole picture of a moment as plain data, for the dashboard's WebSocket and `/control/v1/status`.

Slots are those of all nodes, numbered through; `vram` is the first node's, `nodes` has each one's.

Rule: read from memory only, never from the database; holds no prompt and no answer text. Ages and durations are
seconds.
Must not know: who looks at it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from statistics import median
from typing import Any

from optimizer.core.forecast import SlotView, View, merged
from optimizer.nodes import NodeView
from optimizer.ports import Record
from optimizer.runner import Runner

RECENT = 20  # latest requests shown
WAITS = 400  # latest requests that the median wait of each model is taken of


def snapshot(runner: Runner, at: float) -> dict[str, Any]:
    """The picture now; `at` is the wall clock, seconds since the epoch."""
    nodes = runner.views()
    view = merged([node.view for node in nodes])
    now = view.now
    journal = runner.journal
    tokens = {flight.id: flight.tokens for flight in runner.running()}
    waits_s = _median_waits_s(islice(journal.recent, WAITS))
    return {
        "at": at,
        "backend": runner.backend_name,
        "simulated": runner.simulated,
        "unready": runner.unready(),
        "paused": view.intake_paused,
        "paused_agents": view.paused_agents,
        "swap": view.swap,
        "slots": [_slot(slot, now, tokens.get(slot.job_id, 0)) for slot in view.slots],
        "vram": _vram(nodes[0].view, now),
        "nodes": [_node(node, now) for node in nodes],
        "queues": [{**asdict(queue), "waited_s": waits_s.get(queue.model)} for queue in view.queues],
        "waiting": view.waiting,
        "counters": asdict(view.counters),
        "ended": dict(journal.ended),
        "cache": dict(journal.cache),
        "tokens": {"prompt": journal.tokens_in, "output": journal.tokens_out},
        "response_s": {model: asdict(window.summary(now)) for model, window in journal.response_s.items()},
        "ttft_s": asdict(journal.ttft_s.summary(now)),
        "recent": [_recent(record, at) for record in list(journal.recent)[:RECENT]],
    }


def _node(node: NodeView, now: float) -> dict[str, Any]:
    """`slots` are the numbers of its slots in the whole picture."""
    return {
        "name": node.name,
        "state": node.state,
        "reason": node.reason,
        "slots": [node.first_slot + slot.slot for slot in node.view.slots],
        "waiting": node.view.waiting,
        "swap": node.view.swap,
        "vram": _vram(node.view, now),
    }


def _median_waits_s(recent: Iterable[Record]) -> dict[str, float]:
    """How long requests of each model really waited lately: what a prediction can be held against."""
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for record in recent:
        if record.status == "replied" and record.cache not in ("exact", "semantic"):
            waits[record.model].append(record.queue_s)
    return {model: round(median(values), 1) for model, values in waits.items()}


def _slot(slot: SlotView, now: float, tokens: int) -> dict[str, Any]:
    if not slot.job_id:
        return {"slot": slot.slot, "job_id": ""}
    age = now - slot.started
    decoding = now - slot.since if slot.phase == "decode" else 0.0
    return {
        "slot": slot.slot,
        "job_id": slot.job_id,
        "agent": slot.agent,
        "model": slot.model,
        "phase": slot.phase,
        "age_s": round(age, 3),
        "tokens": tokens,
        "tokens_per_s": round((tokens - 1) / decoding, 1) if decoding > 0.2 and tokens > 1 else None,
    }


def _vram(view: View, now: float) -> dict[str, Any]:
    return {
        "memory_mb": view.memory_mb,  # of the card; what is not usable is headroom
        "usable_mb": view.usable_mb,
        "used_mb": view.used_mb,
        "residents": [{**asdict(r), "since": None, "age_s": round(now - r.since, 1)} for r in view.residents],
        "prospects": [asdict(prospect) for prospect in view.prospects],
    }


def _recent(record: Record, at: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "agent": record.agent,
        "model": record.model,
        "tier": record.tier,
        "status": record.status,
        "error": record.error,
        "cache": record.cache,
        "complexity": record.complexity,
        "age_s": round(at - record.arrived_at - record.total_s, 1),
        "queue_s": round(record.queue_s, 3),
        "total_s": round(record.total_s, 3),
        "output_tokens": record.output_tokens,
    }
