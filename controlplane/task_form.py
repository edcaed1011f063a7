"""A task between its forms: what a caller sends, the engine's request, and the answer as callers read it.

Rule: an answer looks the same whether the caller waited for it or fetched it later.
Must not know: HTTP, the database beyond the row it is given.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist

from controlplane.api.schemas import TaskIn
from controlplane.models import DurableTask, WebhookDelivery
from optimizer.core.request import Kind, Message, Priority, Request, Task
from optimizer.ports import Completed, Started


def as_request(task: TaskIn, agent: str, request_id: str) -> Request:
    """The engine's request for a task."""
    messages = tuple(Message(m.role, m.content) for m in task.messages) or (Message("user", task.prompt),)
    given = {
        "temperature": task.temperature,
        "top_p": task.top_p,
        "num_predict": task.max_tokens,
        "seed": task.seed,
        "stop": task.stop or None,
    }
    return Request(
        id=request_id,
        agent=agent,
        kind=Kind.CHAT,
        messages=messages,
        wanted=task.model or "auto",
        task=Task(
            task_type=task.task_type,
            reasoning_steps=task.reasoning_steps,
            expected_lines=task.expected_lines,
            expertise_level=task.expertise_level,
            context=task.context,
            template=task.template,
            language=task.language,
        ),
        options={name: value for name, value in given.items() if value is not None},
        stream=task.stream,
        priority=Priority[task.priority.upper()] if task.priority else None,
        deadline_s=task.deadline_s,
        cache_read=task.cache,
        cache_write=task.cache,
        conversation=task.conversation,
    )


def outcome(started: Started, completed: Completed) -> dict[str, Any]:
    """The answer and how it came about."""
    return {
        "result": {
            "text": completed.text,
            "thinking": completed.thinking,
            "done_reason": completed.done_reason,
        },
        "model": started.model,
        "tier": started.tier,
        "complexity": started.complexity,
        "cache": started.cache,
        "simulated": started.simulated,
        "usage": {
            "prompt_tokens": completed.prompt_tokens,
            "output_tokens": completed.output_tokens,
            "tokens_saved": started.tokens_saved,
        },
        "timing_s": {
            "queue": started.queue_s,
            "load": started.load_s,
            "prefill": completed.prefill_s,
            "decode": completed.decode_s,
            "total": completed.total_s,
        },
        "decisions": [asdict(decision) for decision in completed.decisions],
    }


def line_of(task: DurableTask) -> dict[str, Any]:
    """One line of a listing. Times in seconds since the epoch."""
    return {
        "id": task.public_id,
        "agent": task.agent,
        "status": task.status,
        "priority": Priority(task.priority).name.lower(),
        "model": task.model or None,
        "batch": task.batch.public_id if task.batch else None,
        "custom_id": task.custom_id or None,
        "created_at": task.created_at.timestamp(),
        "started_at": seconds(task.started_at),
        "finished_at": seconds(task.finished_at),
        "attempts": task.attempts,
        "error": task.error,
        "webhook": delivery_of(task),
    }


def detail_of(task: DurableTask) -> dict[str, Any]:
    """Everything a caller may know of a task; `result` is null until it has succeeded."""
    return {"result": None, "decisions": [], **(task.outcome or {}), **line_of(task)}


def delivery_of(ended: Any) -> dict[str, Any] | None:
    """How far the webhook of a task or batch has come; None when there is none to send."""
    try:
        delivery: WebhookDelivery = ended.delivery
    except ObjectDoesNotExist:
        return None
    return {
        "status": delivery.status,
        "attempts": delivery.attempts,
        "delivered_at": seconds(delivery.delivered_at),
        "error": delivery.error or None,
    }


def seconds(moment: datetime | None) -> float | None:
    """A time as seconds since the epoch."""
    return None if moment is None else moment.timestamp()
