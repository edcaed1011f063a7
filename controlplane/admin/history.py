"""Request records, cached answers, metrics and the audit trail: to read, search and filter."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from controlplane import cached_answers
from controlplane.admin.base import HistoryAdmin, actor
from controlplane.models import AuditEntry, CachedAnswer, Chore, Metric, RequestRecord
from optimizer.quotes import without_quotes


def reads_prompts(request: HttpRequest) -> bool:
    """Texts of agents are for those who were given the permission, not for everybody who may look."""
    return request.user.has_perm("controlplane.read_prompts")


@admin.register(RequestRecord)
class RequestRecordAdmin(HistoryAdmin):
    list_display = (
        "id",
        "arrived_at",
        "agent",
        "model",
        "status",
        "cache",
        "queue_s",
        "ttft_s",
        "total_s",
        "prompt_tokens",
        "output_tokens",
    )
    list_filter = ("status", "cache", "tier", "model", "protocol", "good", "simulated", "arrived_at")
    search_fields = ("=id", "agent", "error", "prompt_original", "answer")
    search_help_text = "Request id, agent, error; prompt or answer for those who may read them."
    date_hierarchy = "arrived_at"
    fieldsets = (
        (None, {"fields": ("id", "arrived_at", "agent", "protocol", "kind", "status", "error", "simulated")}),
        ("Choice", {"fields": ("wanted", "tier", "model", "complexity", "cache", "done_reason", "good", "reasons")}),
        ("Times (s)", {"fields": ("queue_s", "load_s", "prefill_s", "decode_s", "ttft_s", "total_s")}),
        ("Tokens", {"fields": ("prompt_tokens_original", "prompt_tokens", "saved", "output_tokens")}),
        ("Texts", {"fields": ("prompt_original", "prompt_sent", "answer"), "classes": ("collapse",)}),
    )
    readonly_fields = ("reasons", "saved")

    def get_fieldsets(self, request: HttpRequest, obj: RequestRecord | None = None) -> Any:
        shown = super().get_fieldsets(request, obj)
        return shown if reads_prompts(request) else [(name, about) for name, about in shown if name != "Texts"]

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return self.search_fields if reads_prompts(request) else ("=id", "agent", "error")

    @admin.display(description="tokens saved")
    def saved(self, record: RequestRecord) -> int:
        return record.tokens_saved

    @admin.display(description="decisions")
    def reasons(self, record: RequestRecord) -> str:
        rows = format_html_join(
            "",
            "<tr><th>{}</th><td>{}</td><td>{}</td></tr>",
            ((d.get("stage", ""), d.get("choice", ""), d["reason"]) for d in map(without_quotes, record.decisions)),
        )
        return format_html("<table>{}</table>", rows)


@admin.register(CachedAnswer)
class CachedAnswerAdmin(HistoryAdmin):
    list_display = ("__str__", "agent", "group", "model", "hits", "stored_at", "invalidated_at")
    list_filter = ("model", "stored_at", ("invalidated_at", admin.EmptyFieldListFilter))
    search_fields = ("=key", "agent", "group", "question", "text")
    date_hierarchy = "stored_at"
    actions = ("invalidate",)

    def get_exclude(self, request: HttpRequest, obj: CachedAnswer | None = None) -> tuple[str, ...]:
        return ("embedding",) if reads_prompts(request) else ("embedding", "question", "text", "thinking")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return self.search_fields if reads_prompts(request) else ("=key", "agent", "group")

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return self.list_display if reads_prompts(request) else ("key", *self.list_display[1:])

    def has_invalidate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("controlplane.delete_cachedanswer")

    @admin.action(description="Invalidate: not given as an answer again", permissions=["invalidate"])
    def invalidate(self, request: HttpRequest, answers: QuerySet[CachedAnswer]) -> None:
        count = cached_answers.invalidate(answers, actor=actor(request))
        self.message_user(request, f"{count} cached answers invalidated.", messages.SUCCESS)


@admin.register(Metric)
class MetricAdmin(HistoryAdmin):
    list_display = ("name", "labels", "resolution", "start", "count", "mean", "min", "max")
    list_filter = ("name", "resolution", "start")
    search_fields = ("name", "labels")
    date_hierarchy = "start"

    @admin.display(description="mean")
    def mean(self, metric: Metric) -> str:
        return f"{metric.sum / metric.count:.3g}" if metric.count else ""


@admin.register(Chore)
class ChoreAdmin(HistoryAdmin):
    list_display = ("name", "owner", "began_at", "done", "ended_at", "failed", "said")


@admin.register(AuditEntry)
class AuditEntryAdmin(HistoryAdmin):
    list_display = ("at", "actor", "action", "target", "summary")
    list_filter = ("action", "actor", "at")
    search_fields = ("actor", "target", "detail")
    date_hierarchy = "at"

    @admin.display(description="detail")
    def summary(self, entry: AuditEntry) -> str:
        text = ", ".join(f"{name}: {value}" for name, value in entry.detail.items())
        return text if len(text) <= 160 else text[:159] + "…"
