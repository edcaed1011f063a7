"""/control/v1/tasks: the strategy's task in, the answer AND every decision out.

Rule: an agent sees its own tasks only; an admin key sees all.
Must not know: how a task is scheduled.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from django.http import HttpResponseBase, StreamingHttpResponse

from controlplane import durable_tasks, queries
from controlplane.api import durable
from controlplane.api.endpoint import Call, endpoint
from controlplane.api.schemas import FeedbackIn, TaskIn
from controlplane.task_form import as_request, detail_of, outcome
from controlplane.wire.errors import HttpError, Problem, internal, problem_of
from optimizer.core.errors import BackendUnavailable, GenerationFailed, InvalidRequest, NarrowgaugeError
from optimizer.ports import Completed, Delta, Record, Reply, Started, Waiting


async def create(call: Call) -> Any:
    """Answer a task; streamed as server-sent events if the body asks for it; kept for later with wait=false."""
    task: TaskIn = call.body(TaskIn)
    if not task.wait:
        return await durable.accept(call, task)
    if durable.idempotency_key(call) is not None:
        raise InvalidRequest("an Idempotency-Key needs a durable task: send wait=false", param="wait")
    request = as_request(task, call.agent, f"task-{uuid4().hex}")
    replies = call.service.engine.submit(request)
    if task.stream:
        return _stream(request.id, replies)
    started: Started | None = None
    async with aclosing(replies):
        async for item in replies:
            if isinstance(item, Started):
                started = item
            elif isinstance(item, Completed) and started is not None:
                return result(request.id, call.agent, started, item)
    raise GenerationFailed("the answer broke off")


async def index(call: Call) -> Any:
    """The caller's latest ended requests (an admin key: everybody's), newest first; ?limit=1..200, ?status=, ?agent=.

    With ?wait=false its durable tasks instead, ended or not (api/durable.py).
    """
    wanted = call.request.GET
    if wanted.get("wait", "").lower() == "false":
        return await durable.index(call)
    limit = int(wanted["limit"]) if re.fullmatch(r"[0-9]{1,9}", wanted.get("limit", "")) else 50
    agent = wanted.get("agent", "") if call.is_admin else call.agent
    rows = await call.service.in_database(queries.records, agent, wanted.get("status", ""), min(max(limit, 1), 200))
    return {"tasks": [summary(row) for row in rows]}


async def show(call: Call, task_id: str) -> Any:
    """One task: a durable one in whatever state, or an ended request, with its decisions."""
    kept = await call.service.in_database(durable_tasks.find, task_id, call.sees)
    return detail(await _record(call, task_id)) if kept is None else detail_of(kept)


async def feedback(call: Call, task_id: str) -> Any:
    """Take an outcome into the agent's history; the last word counts once per task."""
    given: FeedbackIn = call.body(FeedbackIn)
    kept = await call.service.in_database(durable_tasks.find, task_id, call.sees)
    record = await _record(call, task_id if kept is None else kept.request_id)
    if record.status != "replied":
        message = f"this task was {record.status}; only an answer can be good or bad"
        raise HttpError(Problem(409, message, "invalid_request_error", "not_answered"))
    good = given.outcome == "good"
    before = await call.service.in_database(queries.give_feedback, record, good)
    await call.service.desk.revise(record.agent, record.tier, good, before)
    return {"id": task_id, "outcome": given.outcome, "agent": record.agent, "tier": record.tier}


async def _record(call: Call, task_id: str) -> Record:
    try:
        record = await call.service.desk.record(task_id)
    except BackendUnavailable:
        record = None  # no engine: what is stored can be shown all the same
    if record is None:
        record = await call.service.in_database(queries.record, task_id)
    if record is None or not (call.is_admin or record.agent == call.agent):
        raise HttpError(Problem(404, f"no task '{task_id[:64]}'", "invalid_request_error", "task_not_found"))
    return record


def result(task_id: str, agent: str, started: Started, completed: Completed) -> dict[str, Any]:
    """An answer that its caller waited for."""
    return {"id": task_id, "agent": agent, "status": "succeeded", **outcome(started, completed)}


_STATUS = {"replied": "succeeded", "rejected": "rejected", "cancelled": "cancelled", "failed": "failed"}


def summary(record: Record) -> dict[str, Any]:
    """One line of a listing."""
    return {
        "id": record.id,
        "agent": record.agent,
        "status": _STATUS[record.status],
        "error": record.error,
        "model": record.model,
        "tier": record.tier,
        "complexity": record.complexity,
        "cache": record.cache,
        "simulated": record.simulated,
        "arrived_at": record.arrived_at,
        "usage": {
            "prompt_tokens": record.prompt_tokens,
            "prompt_tokens_original": record.prompt_tokens_original,
            "output_tokens": record.output_tokens,
        },
        "timing_s": {
            "queue": record.queue_s,
            "load": record.load_s,
            "prefill": record.prefill_s,
            "decode": record.decode_s,
            "first_token": record.ttft_s,
            "total": record.total_s,
        },
    }


def detail(record: Record) -> dict[str, Any]:
    """Everything that is kept of a task; texts are empty where prompts are not stored."""
    return {
        **summary(record),
        "decisions": list(record.decisions),
        "prompt_original": record.prompt_original,
        "prompt_sent": record.prompt_sent,
        "result": {"text": record.answer, "done_reason": record.done_reason},
    }


def _stream(task_id: str, replies: AsyncGenerator[Reply, None]) -> HttpResponseBase:
    response = StreamingHttpResponse(_events(task_id, replies), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    return response


async def _events(task_id: str, replies: AsyncGenerator[Reply, None]) -> AsyncIterator[bytes]:
    started: Started | None = None
    try:
        async with aclosing(replies):
            async for item in replies:
                match item:
                    case Waiting():
                        yield _event("waiting", {"id": task_id, **asdict(item)})
                    case Started():
                        started = item
                        yield _event("started", {"id": task_id, **asdict(item)})
                    case Delta():
                        yield _event("delta", {"text": item.text, "thinking": item.thinking})
                    case Completed() if started is not None:
                        yield _event("completed", result(task_id, "", started, item))
    except NarrowgaugeError as error:
        problem = problem_of(error) or internal(task_id)
        yield _event("error", {"type": problem.code or problem.kind, "message": problem.message})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


collection = endpoint(get=index, post=create)
single = endpoint(get=show, delete=durable.cancel)
single_feedback = endpoint(post=feedback)
