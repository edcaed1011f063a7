"""Deleting history that is older than the thresholds say, and turning old minutes of metrics into hours."""

from datetime import timedelta
from typing import Any

from django.db.models import Q

from controlplane import storable
from controlplane.models import Batch, CachedAnswer, DurableTask, Metric, RequestRecord
from controlplane.stores.metrics import roll_up
from optimizer.quotes import without_quotes

METRIC_MINUTES_KEPT = timedelta(days=2)  # long enough to look closely at yesterday
METRIC_HOURS_KEPT = timedelta(days=400)  # more than a year, to compare with
_INVALIDATED_KEPT = timedelta(hours=1)  # long after every engine has let go of its copy
_CHUNK = 2_000  # rows per transaction, so that no writer waits long


def delete_old(
    now: float,
    *,
    record_retention_days: int,
    prompt_retention_hours: float,
    cache_ttl_s: float,
    task_retention_days: int,
) -> dict[str, int]:
    """Delete records, the texts of records, cached answers, ended tasks and metrics past their time; rows deleted (of
    texts: emptied), by kind.

    `now` in seconds since the epoch.
    """
    moment = storable.moment(now)
    old_tasks = moment - timedelta(days=task_retention_days)
    return {
        "records": _delete(RequestRecord, arrived_at__lt=moment - timedelta(days=record_retention_days)),
        "texts": _forget_texts(arrived_at__lt=moment - timedelta(hours=prompt_retention_hours)),
        "answers": _delete(CachedAnswer, stored_at__lt=moment - timedelta(seconds=cache_ttl_s))
        + _delete(CachedAnswer, invalidated_at__lt=moment - _INVALIDATED_KEPT),
        # A batch's tasks go with their batch, and before it: in chunks, not all in one cascade.
        "tasks": _delete(DurableTask, batch=None, finished_at__lt=old_tasks)
        + _delete(DurableTask, batch__finished_at__lt=old_tasks),
        "batches": _delete(Batch, finished_at__lt=old_tasks),
        "metrics": _delete(Metric, start__lt=moment - METRIC_HOURS_KEPT),
    }


def roll_up_old(now: float) -> int:
    """Turn minutes of metrics past their time into hours; returns the minutes turned. `now` as above."""
    return roll_up(now - METRIC_MINUTES_KEPT.total_seconds())


def _forget_texts(**which: Any) -> int:
    """Empty prompts and answers, and what decisions quote of them; times, sizes and figures stay."""
    emptied = 0
    kept = ~Q(prompt_original="") | ~Q(prompt_sent="") | ~Q(answer="")
    while True:
        rows = list(RequestRecord.objects.filter(kept, **which).order_by().only("pk", "decisions")[:_CHUNK])
        if not rows:
            return emptied
        for row in rows:
            row.prompt_original = row.prompt_sent = row.answer = ""
            row.decisions = [without_quotes(decision) for decision in row.decisions]
        emptied += RequestRecord.objects.bulk_update(
            rows, ("prompt_original", "prompt_sent", "answer", "decisions"), batch_size=100
        )


def _delete(model: Any, **which: Any) -> int:
    deleted = 0
    while True:
        keys = list(model.objects.filter(**which).order_by().values_list("pk", flat=True)[:_CHUNK])
        if not keys:
            return deleted
        deleted += model.objects.filter(pk__in=keys).delete()[0]
