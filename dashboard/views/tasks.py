"""Durable tasks and batches: what waits, runs and has ended, how far each batch is, and cancelling.

Rule: no texts here; a task's link leads to its request, which shows them to those who may read them.
"""

import time
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from controlplane import audit, durable_tasks
from controlplane.models import Batch, DurableTask
from dashboard.access import TASKS, may, page
from dashboard.engine import on_loop, service_of

PER_PAGE = 50
BATCHES_SHOWN = 10


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Counts, batches with their progress, and tasks by filter, fifty at a time."""
    given = {name: request.GET.get(name, "").strip() for name in ("agent", "status", "batch")}
    before = request.GET.get("before", "")
    rows = durable_tasks.listed(
        PER_PAGE + 1,
        int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        agent=given["agent"],
        status=given["status"] if given["status"] in DurableTask.Status.values else "",
        batch__public_id=given["batch"],
    )
    kept = {name: value for name, value in given.items() if value}
    context = {
        "rows": rows[:PER_PAGE],
        "given": given,
        "filtered": bool(kept),
        "statuses": DurableTask.Status.values,
        "counts": durable_tasks.counts(),
        "batches": _batches(given["agent"]),
        "paged": bool(before),
        "newest": f"?{urlencode(kept)}",
        "older": f"?{urlencode({**kept, 'before': rows[PER_PAGE - 1].number})}" if len(rows) > PER_PAGE else "",
        "may": may(request.user),
    }
    return render(request, "dashboard/tasks.html", context)


@require_POST
@page(TASKS)
def cancel(request: HttpRequest) -> HttpResponse:
    """Cancel one task (`task`) or what is left of a batch (`batch`)."""
    task, batch = request.POST.get("task", ""), request.POST.get("batch", "")
    count = _cancel_batch(batch) if batch else _cancel_task(task)
    if count:
        audit.record(
            request.user.get_username(), "cancel", f"{'batch' if batch else 'task'} {batch or task}", tasks=count
        )
        on_loop(service_of(request).tasks_changed)
        messages.success(request, f"{count} task{'' if count == 1 else 's'} cancelled.")
    else:
        messages.error(request, "Nothing was cancelled: it had ended already.")
    return redirect("dashboard:tasks")


def _cancel_task(public_id: str) -> int:
    task = durable_tasks.find(public_id)
    if task is None:
        raise Http404
    return int(durable_tasks.cancel(task, time.time()))


def _cancel_batch(public_id: str) -> int:
    batch = durable_tasks.find_batch(public_id)
    if batch is None:
        raise Http404
    return durable_tasks.cancel_batch(batch, time.time())


def _batches(agent: str) -> list[dict[str, Any]]:
    rows: list[Batch] = durable_tasks.listed_batches(BATCHES_SHOWN, agent=agent)
    counts = durable_tasks.progress(rows)
    return [
        {
            "batch": row,
            "counts": counts[row.number],
            "ended": row.total - sum(counts[row.number][status] for status in DurableTask.UNFINISHED),
            "status": durable_tasks.status_of(row),
        }
        for row in rows
    ]
