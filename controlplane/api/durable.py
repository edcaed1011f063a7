"""Durable tasks over HTTP: accepted at once, looked at, listed, cancelled and watched later.

Rule: an agent sees its own tasks only, a foreign one does not exist for it; an admin key sees all. What is answered
with 202 is stored.
Must not know: who runs a task.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse

from controlplane import durable_tasks
from controlplane.api.endpoint import Call, endpoint
from controlplane.api.schemas import TaskIn
from controlplane.durable_tasks import KeyReused, Once
from controlplane.models import DurableTask
from controlplane.task_form import detail_of, line_of
from controlplane.wire.errors import HttpError, Problem, too_large
from optimizer.core.errors import InvalidRequest
from optimizer.core.request import Priority

log = logging.getLogger("narrowgauge.api")

MOST_STORED_BYTES = 4 * 1024 * 1024  # of one task; far beyond any model's window
DEFAULT_LIMIT, MOST_LISTED = 50, 200
LOOK_EVERY_S = 0.5  # how soon a watcher hears of a change
KEEP_ALIVE_S = 10.0  # proxies close what is silent
LONGEST_WATCH_S = 600.0  # then the watcher comes back with Last-Event-ID
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NUMBER = re.compile(r"[0-9]{1,18}")


async def accept(call: Call, task: TaskIn) -> HttpResponseBase:
    """Store a task; 202 with its id and Location."""
    body = task.model_dump(exclude_defaults=True, exclude={"wait"})
    if len(json.dumps(body)) > MOST_STORED_BYTES:
        raise too_large(MOST_STORED_BYTES)
    once = Once(idempotency_key(call), durable_tasks.fingerprint(body))
    limits = call.service.tables.thresholds
    kept, new = await stored(
        call, durable_tasks.accept, call.agent, body, _priority(call, task), once, time.time(),
        limits.durable_waiting_per_agent,
    )  # fmt: skip
    return accepted(f"/control/v1/tasks/{kept.public_id}", detail_of(kept), new)


async def index(call: Call) -> Any:
    """Durable tasks, newest first: ?status=, ?batch=, ?agent= (admin), ?limit=1..200, ?cursor= from `next`."""
    wanted = call.request.GET
    status = wanted.get("status", "")
    if status and status not in DurableTask.Status.values:
        raise InvalidRequest(f"status must be one of {', '.join(DurableTask.Status.values)}", param="status")
    agent = wanted.get("agent", "") if call.is_admin else call.agent
    limit, cursor = page_of(call)

    def look() -> list[DurableTask]:
        which = {"agent": agent, "status": status, "batch__public_id": wanted.get("batch", "")}
        return durable_tasks.listed(limit + 1, cursor, **which)

    rows = await call.service.in_database(look)
    return {"tasks": [line_of(row) for row in rows[:limit]], "next": next_cursor(rows, limit)}


async def cancel(call: Call, task_id: str) -> Any:
    """Cancel a task, waiting or running; one that is cancelled stays so, another that has ended is 409."""
    task = await _found(call, task_id)
    if await call.service.in_database(durable_tasks.cancel, task, time.time()):
        call.service.tasks_changed()
    task = await _found(call, task_id)
    if task.status != DurableTask.Status.CANCELLED:
        message = f"this task has {task.status} already; it cannot be cancelled"
        raise HttpError(Problem(409, message, "invalid_request_error", "task_ended"))
    return detail_of(task)


async def events(call: Call, task_id: str) -> HttpResponseBase:
    """Server-sent events, one per status seen, the last with the whole task; resumes by Last-Event-ID."""
    task = await _found(call, task_id)
    response = StreamingHttpResponse(_changes(call, task), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    return response


async def _changes(call: Call, task: DurableTask | None) -> AsyncIterator[bytes]:
    told = call.request.headers.get("Last-Event-ID", "")
    began = spoke = time.monotonic()
    while task is not None and time.monotonic() - began < LONGEST_WATCH_S:
        ended = task.status not in DurableTask.UNFINISHED
        now = f"{task.epoch}-{task.attempts}-{task.status}"
        if now != told:
            told, spoke = now, time.monotonic()
            data = detail_of(task) if ended else line_of(task)
            yield f"id: {now}\nevent: {task.status}\ndata: {json.dumps(data)}\n\n".encode()
        if ended:
            return
        if time.monotonic() - spoke > KEEP_ALIVE_S:
            spoke = time.monotonic()
            yield b": waiting\n\n"
        await asyncio.sleep(LOOK_EVERY_S)
        task = await call.service.in_database(durable_tasks.find, task.public_id)


# shared with batches -------------------------------------------------------------------------------------


def idempotency_key(call: Call) -> str | None:
    """The Idempotency-Key header. Raises InvalidRequest for one that is no key."""
    key = call.request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters", param="Idempotency-Key")
    return key


async def stored(call: Call, accept: Any, *arguments: Any) -> Any:
    """What `durable_tasks.accept` or `accept_batch` returns; the runner hears of what is new. Raises 422, 503."""
    try:
        row, new = await call.service.in_database(accept, *arguments)
    except KeyReused as error:
        problem = Problem(422, str(error), "invalid_request_error", "idempotency_key_reused", "Idempotency-Key")
        raise HttpError(problem) from None
    except (OperationalError, InterfaceError) as error:
        log.error("a task could not be stored: %s", error)
        message = "it could not be stored, and is not accepted; try again"
        headers = ((b"retry-after", b"5"),)
        raise HttpError(Problem(503, message, "server_error", "not_stored", headers=headers)) from None
    if new:
        call.service.tasks_changed()
    return row, new


def accepted(location: str, data: dict[str, Any], new: bool) -> HttpResponseBase:
    """202 with Location; says when it is an earlier call's that came again."""
    response = JsonResponse(data, status=202)
    response["Location"] = location
    if not new:
        response["Idempotent-Replayed"] = "true"
    return response


def page_of(call: Call) -> tuple[int, int | None]:
    """(limit, cursor). Raises InvalidRequest for what is no number."""
    limit, cursor = call.request.GET.get("limit", str(DEFAULT_LIMIT)), call.request.GET.get("cursor", "")
    if not _NUMBER.fullmatch(limit):
        raise InvalidRequest(f"limit must be a number from 1 to {MOST_LISTED}", param="limit")
    if cursor and not _NUMBER.fullmatch(cursor):
        raise InvalidRequest("cursor must be the `next` of an earlier answer", param="cursor")
    return min(max(int(limit), 1), MOST_LISTED), int(cursor) if cursor else None


def next_cursor(rows: list[Any], limit: int) -> str | None:
    """Where the next page starts; None on the last. `rows` holds one more than `limit` when there is one."""
    return str(rows[limit - 1].number) if len(rows) > limit else None


async def _found(call: Call, task_id: str) -> DurableTask:
    task: DurableTask | None = await call.service.in_database(durable_tasks.find, task_id, call.sees)
    if task is None:
        raise HttpError(Problem(404, f"no durable task '{task_id[:64]}'", "invalid_request_error", "task_not_found"))
    return task


def _priority(call: Call, task: TaskIn) -> Priority:
    """As asked, else the agent's own."""
    return Priority[task.priority.upper()] if task.priority else call.service.tables.agents[call.agent].priority


single_cancel = endpoint(post=cancel)
single_events = endpoint(get=events)
