"""Durable tasks, batches and webhook deliveries: to read and filter; people may cancel, and queue again."""

import time

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane import audit, durable_tasks
from controlplane.admin.base import HistoryAdmin, actor
from controlplane.admin.history import reads_prompts
from controlplane.models import Batch, DurableTask, WebhookDelivery
from controlplane.stores import durable


class _SteerableAdmin(HistoryAdmin):
    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("controlplane.change_durabletask")


@admin.register(DurableTask)
class DurableTaskAdmin(_SteerableAdmin):
    list_display = (
        "public_id",
        "created_at",
        "agent",
        "priority",
        "status",
        "model",
        "attempts",
        "started_at",
        "finished_at",
    )
    list_filter = ("status", "priority", "model", "created_at")
    search_fields = ("=public_id", "=batch__public_id", "agent", "custom_id", "=idempotency_key")
    search_help_text = "Task, batch, agent, the caller's own id, idempotency key."
    list_select_related = ("batch",)
    date_hierarchy = "created_at"
    actions = ("cancel", "requeue")

    def get_exclude(self, request: HttpRequest, obj: DurableTask | None = None) -> tuple[str, ...]:
        return ("fingerprint",) if reads_prompts(request) else ("fingerprint", "body", "outcome")

    @admin.action(description="Cancel: what waits or runs", permissions=["steer"])
    def cancel(self, request: HttpRequest, tasks: QuerySet[DurableTask]) -> None:
        count = durable.cancel(DurableTask.objects.filter(pk__in=list(tasks.values_list("pk", flat=True))), time.time())
        _told(self, request, "cancel", f"{count} durable tasks", f"{count} tasks cancelled.")

    @admin.action(description="Queue again: what failed or was cancelled", permissions=["steer"])
    def requeue(self, request: HttpRequest, tasks: QuerySet[DurableTask]) -> None:
        count = durable.requeue(
            DurableTask.objects.filter(pk__in=list(tasks.values_list("pk", flat=True))), time.time()
        )
        _told(self, request, "requeue", f"{count} durable tasks", f"{count} tasks queued again.")


@admin.register(Batch)
class BatchAdmin(_SteerableAdmin):
    list_display = ("public_id", "created_at", "agent", "total", "finished_at", "cancelled_at")
    list_filter = (("finished_at", admin.EmptyFieldListFilter), ("cancelled_at", admin.EmptyFieldListFilter))
    search_fields = ("=public_id", "agent", "=idempotency_key")
    date_hierarchy = "created_at"
    exclude = ("fingerprint",)
    actions = ("cancel",)

    @admin.action(description="Cancel: what is left of them", permissions=["steer"])
    def cancel(self, request: HttpRequest, batches: QuerySet[Batch]) -> None:
        count = sum(durable_tasks.cancel_batch(batch, time.time()) for batch in batches)
        _told(self, request, "cancel", f"{count} tasks of batches", f"{count} tasks cancelled.")


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(HistoryAdmin):
    list_display = (
        "public_id",
        "created_at",
        "agent",
        "event",
        "status",
        "attempts",
        "next_at",
        "delivered_at",
        "error",
    )
    list_filter = ("status", "event", "created_at")
    search_fields = ("=public_id", "agent", "error")
    raw_id_fields = ("task", "batch")
    date_hierarchy = "created_at"


def _told(page: _SteerableAdmin, request: HttpRequest, action: str, target: str, sentence: str) -> None:
    audit.record(actor(request), action, target)
    page.message_user(request, sentence, messages.SUCCESS)
