"""/control/v1/batches: many tasks in one file of JSON lines, worked off in the lowest priority class.

Rule: as for durable tasks; a file is taken whole or not at all.
Must not know: who runs a batch.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from django.http import HttpResponseBase, StreamingHttpResponse

from controlplane import batch_lines, durable_tasks
from controlplane.api.durable import accepted, idempotency_key, next_cursor, page_of, stored
from controlplane.api.endpoint import BODY_LIMIT_BYTES, Call, endpoint
from controlplane.durable_tasks import Once
from controlplane.models import Batch
from controlplane.task_form import delivery_of, detail_of, seconds
from controlplane.wire.errors import HttpError, Problem, too_large

LINES_AT_ONCE = 200  # results read from the database in one go


async def create(call: Call) -> Any:
    """Store a batch, one task a line; 202 with its id and Location."""
    key, data, limits = idempotency_key(call), call.data(), call.service.tables.thresholds
    if len(data) > BODY_LIMIT_BYTES:
        raise too_large(BODY_LIMIT_BYTES)
    lines = await asyncio.to_thread(batch_lines.read, data, limits.batch_max_lines)  # other requests go on meanwhile
    once = Once(key, durable_tasks.fingerprint(data))
    batch, new = await stored(
        call, durable_tasks.accept_batch, call.agent, lines, once, time.time(), limits.durable_waiting_per_agent
    )
    return accepted(f"/control/v1/batches/{batch.public_id}", await _as_json(call, batch), new)


async def index(call: Call) -> Any:
    """Batches, newest first: ?agent= (admin), ?limit=1..200, ?cursor= from `next`."""
    limit, cursor = page_of(call)
    agent = call.request.GET.get("agent", "") if call.is_admin else call.agent
    rows = await call.service.in_database(durable_tasks.listed_batches, limit + 1, cursor, agent)
    counts = await call.service.in_database(durable_tasks.progress, rows[:limit])
    return {
        "batches": [as_json(row, counts[row.number]) for row in rows[:limit]],
        "next": next_cursor(rows, limit),
    }


async def show(call: Call, batch_id: str) -> Any:
    """One batch with its progress."""
    return await _as_json(call, await _found(call, batch_id))


async def cancel(call: Call, batch_id: str) -> Any:
    """Cancel what has not ended; results that there are stay. A batch that has finished is 409."""
    batch = await _found(call, batch_id)
    if batch.finished_at is not None and batch.cancelled_at is None:
        message = "this batch has finished already; it cannot be cancelled"
        raise HttpError(Problem(409, message, "invalid_request_error", "batch_finished"))
    await call.service.in_database(durable_tasks.cancel_batch, batch, time.time())
    call.service.tasks_changed()
    return await show(call, batch_id)


async def results(call: Call, batch_id: str) -> HttpResponseBase:
    """JSON lines, one per ended task in the order of the input; before the end, those there are."""
    batch = await _found(call, batch_id)
    response = StreamingHttpResponse(_results(call, batch), content_type="application/jsonl")
    response["Cache-Control"] = "no-store"
    return response


async def _results(call: Call, batch: Batch) -> AsyncIterator[bytes]:
    after = 0
    while rows := await call.service.in_database(durable_tasks.ended_lines, batch, after, LINES_AT_ONCE):
        after = rows[-1].line
        yield b"".join(json.dumps({"line": row.line, **detail_of(row)}).encode() + b"\n" for row in rows)


def as_json(batch: Batch, counts: dict[str, int]) -> dict[str, Any]:
    """A batch as the API shows it."""
    return {
        "id": batch.public_id,
        "agent": batch.agent,
        "status": durable_tasks.status_of(batch),
        "total": batch.total,
        "counts": counts,
        "created_at": batch.created_at.timestamp(),
        "cancelled_at": seconds(batch.cancelled_at),
        "finished_at": seconds(batch.finished_at),
        "webhook": delivery_of(batch),
        "results": f"/control/v1/batches/{batch.public_id}/results",
    }


async def _as_json(call: Call, batch: Batch) -> dict[str, Any]:
    counts = await call.service.in_database(durable_tasks.progress, [batch])
    return as_json(batch, counts[batch.number])


async def _found(call: Call, batch_id: str) -> Batch:
    batch: Batch | None = await call.service.in_database(durable_tasks.find_batch, batch_id, call.sees)
    if batch is None:
        raise HttpError(Problem(404, f"no batch '{batch_id[:64]}'", "invalid_request_error", "batch_not_found"))
    return batch


collection = endpoint(get=index, post=create)
single = endpoint(get=show, delete=cancel)
single_cancel = endpoint(post=cancel)
single_results = endpoint(get=results)
