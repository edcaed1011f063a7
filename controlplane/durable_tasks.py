"""Accepting, finding and ending durable tasks and batches: what the API, the pages and the commands ask for.

Rule: what was accepted is stored before the caller hears so; an idempotency key names one task or batch of its agent,
and the database keeps it so.
Must not know: HTTP; how a task is run (stores/durable.py, task_runner.py).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from django.db import IntegrityError, transaction
from django.db.models import Count, QuerySet

from controlplane import storable
from controlplane.models import Batch, DurableTask
from controlplane.stores import durable
from optimizer.core.errors import AgentLimit, InvalidRequest
from optimizer.core.request import Priority

FULL_RETRY_S = 60.0  # nobody can say when an agent's store of tasks has room again
_ROWS_AT_ONCE = 500

Row = TypeVar("Row", DurableTask, Batch)


class KeyReused(InvalidRequest):
    """An idempotency key came again with another body."""


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key with the fingerprint of the body it came with; no key means every call is a new one."""

    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One task of a batch. `body` is a `schemas.TaskIn` as a dict."""

    number: int
    custom_id: str
    body: dict[str, Any]


def fingerprint(body: Any) -> str:
    """SHA-256 of JSON or of bytes, hex."""
    data = body if isinstance(body, bytes) else json.dumps(body, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def accept(
    agent: str, body: dict[str, Any], priority: Priority, once: Once, now: float, most_waiting: int
) -> tuple[DurableTask, bool]:
    """Store a task; (the task, whether it is new). Raises KeyReused, AgentLimit."""
    before = _known(DurableTask, agent, once)
    if before is not None:
        return before, False
    _room(agent, 1, most_waiting)
    moment = storable.moment(now)
    row = DurableTask(
        public_id=f"task-{uuid4().hex}",
        agent=agent,
        idempotency_key=once.key,
        fingerprint=once.fingerprint,
        priority=priority,
        body=storable.json(body),
        created_at=moment,
        not_before=moment,
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:  # the same key came in another process a moment ago
        return _raced(DurableTask, agent, once), False
    return _shown().get(pk=row.pk), True


def accept_batch(agent: str, lines: Sequence[Line], once: Once, now: float, most_waiting: int) -> tuple[Batch, bool]:
    """Store a batch with all its tasks or nothing; (the batch, whether it is new). Raises KeyReused, AgentLimit."""
    before = _known(Batch, agent, once)
    if before is not None:
        return before, False
    _room(agent, len(lines), most_waiting)
    moment = storable.moment(now)
    batch = Batch(
        public_id=f"batch-{uuid4().hex}",
        agent=agent,
        idempotency_key=once.key,
        fingerprint=once.fingerprint,
        total=len(lines),
        created_at=moment,
    )
    try:
        with transaction.atomic():
            batch.save(force_insert=True)
            DurableTask.objects.bulk_create(
                (
                    DurableTask(
                        public_id=f"task-{uuid4().hex}",
                        agent=agent,
                        batch=batch,
                        line=line.number,
                        custom_id=line.custom_id,
                        priority=Priority.BATCH,
                        body=storable.json(line.body),
                        created_at=moment,
                        not_before=moment,
                    )
                    for line in lines
                ),
                batch_size=_ROWS_AT_ONCE,
            )
    except IntegrityError:
        return _raced(Batch, agent, once), False
    return _batches().get(pk=batch.pk), True


def find(public_id: str, agent: str = "") -> DurableTask | None:
    """A task with its batch and webhook; only this agent's, unless it is ""."""
    which = {"agent": agent} if agent else {}
    return _shown().filter(public_id=public_id[:64], **which).first()


def find_batch(public_id: str, agent: str = "") -> Batch | None:
    """A batch with its webhook; only this agent's, unless it is ""."""
    which = {"agent": agent} if agent else {}
    return _batches().filter(public_id=public_id[:64], **which).first()


def listed(limit: int, before: int | None = None, **which: str) -> list[DurableTask]:
    """Tasks, newest first, without texts; `which`: agent, status, batch__public_id. `before` a task's number."""
    rows = _shown().defer("body", "outcome").filter(**{name: value for name, value in which.items() if value})
    return list((rows if before is None else rows.filter(number__lt=before))[:limit])


def listed_batches(limit: int, before: int | None = None, agent: str = "") -> list[Batch]:
    """Batches, newest first."""
    rows = _batches().filter(**({"agent": agent} if agent else {}))
    return list((rows if before is None else rows.filter(number__lt=before))[:limit])


def progress(batches: Sequence[Batch]) -> dict[int, dict[str, int]]:
    """How many of each batch's tasks are in each status, by the batch's number."""
    counts = {batch.number: dict.fromkeys(map(str, DurableTask.Status), 0) for batch in batches}
    rows = (
        DurableTask.objects.filter(batch__in=batches).order_by().values("batch", "status").annotate(tasks=Count("pk"))
    )
    for row in rows:
        counts[row["batch"]][row["status"]] = row["tasks"]
    return counts


def status_of(batch: Batch) -> str:
    """running | finished | cancelled"""
    if batch.cancelled_at is not None:
        return "cancelled"
    return "running" if batch.finished_at is None else "finished"


def counts() -> dict[str, int]:
    """How many tasks are kept in each status."""
    rows = DurableTask.objects.order_by().values("status").annotate(tasks=Count("pk"))
    return dict.fromkeys(map(str, DurableTask.Status), 0) | {row["status"]: row["tasks"] for row in rows}


def ended_lines(batch: Batch, after: int, limit: int) -> list[DurableTask]:
    """The ended tasks of a batch beyond line `after`, in the order of its lines."""
    ended = _shown().filter(batch=batch).exclude(status__in=DurableTask.UNFINISHED).defer("body")
    return list(ended.filter(line__gt=after).order_by("line")[:limit])


def cancel(task: DurableTask, now: float) -> bool:
    """Cancel one; False when it had ended already."""
    return bool(durable.cancel(DurableTask.objects.filter(pk=task.pk), now))


def cancel_batch(batch: Batch, now: float) -> int:
    """Cancel what is left of a batch; returns how many tasks that were."""
    Batch.objects.filter(pk=batch.pk, finished_at=None, cancelled_at=None).update(cancelled_at=storable.moment(now))
    cancelled = durable.cancel(DurableTask.objects.filter(batch=batch), now)
    durable.end_batches(now)
    return cancelled


def _shown() -> QuerySet[DurableTask]:
    """With what is shown of them: read in one go, since pages of the API may not ask the database later."""
    return DurableTask.objects.select_related("batch", "delivery")


def _batches() -> QuerySet[Batch]:
    return Batch.objects.select_related("delivery")


def _known(kind: type[Row], agent: str, once: Once) -> Row | None:
    """What this key named before. Raises KeyReused when it came with another body."""
    if once.key is None:
        return None
    rows: Any = _shown() if kind is DurableTask else _batches()
    row: Row | None = rows.filter(agent=agent, idempotency_key=once.key).first()
    if row is not None and row.fingerprint != once.fingerprint:
        raise KeyReused(f"this Idempotency-Key was used for {row.public_id} with another body; use a new key")
    return row


def _raced(kind: type[Row], agent: str, once: Once) -> Row:
    """The row that was stored under this key between the look and the insert."""
    row = _known(kind, agent, once)
    if row is None:
        raise IntegrityError(f"a {kind.__name__} was refused, and not for its key")
    return row


def _room(agent: str, wanted: int, most: int) -> None:
    """Raises AgentLimit when the agent would have more unfinished tasks than it may."""
    waiting = DurableTask.objects.filter(agent=agent, status__in=DurableTask.UNFINISHED).count()
    if waiting + wanted > most:
        raise AgentLimit(
            f"this agent has {waiting} unfinished durable tasks of at most {most}; wait, or cancel some",
            retry_after_s=FULL_RETRY_S,
        )
