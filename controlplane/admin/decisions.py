"""Suggestions of the adaptive optimiser: apply, dismiss, roll back."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from controlplane import suggestions
from controlplane.admin.base import HistoryAdmin, actor
from controlplane.models import Suggestion
from optimizer.core.thresholds import ThresholdError


@admin.register(Suggestion)
class SuggestionAdmin(HistoryAdmin):
    list_display = ("title", "severity", "state", "rule", "change", "created_at", "decided_at", "actor")
    list_filter = ("state", "severity", "rule", "created_at")
    search_fields = ("title", "body", "rule", "actor")
    date_hierarchy = "created_at"
    actions = ("apply", "dismiss", "roll_back")

    def has_decide_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("controlplane.change_suggestion")

    @admin.action(description="Apply", permissions=["decide"])
    def apply(self, request: HttpRequest, chosen: QuerySet[Suggestion]) -> None:
        self._decide(request, chosen, suggestions.apply, "applied")

    @admin.action(description="Dismiss", permissions=["decide"])
    def dismiss(self, request: HttpRequest, chosen: QuerySet[Suggestion]) -> None:
        self._decide(request, chosen, suggestions.dismiss, "dismissed")

    @admin.action(description="Roll back", permissions=["decide"])
    def roll_back(self, request: HttpRequest, chosen: QuerySet[Suggestion]) -> None:
        self._decide(request, chosen, suggestions.roll_back, "rolled back")

    def _decide(
        self,
        request: HttpRequest,
        chosen: QuerySet[Suggestion],
        decide: Callable[[Suggestion, str], bool],
        word: str,
    ) -> None:
        for suggestion in chosen.order_by("pk"):
            try:
                done = decide(suggestion, actor(request))
            except ThresholdError as error:
                self.message_user(request, f"{suggestion}: {error}", messages.ERROR)
                continue
            if done:
                self.message_user(request, f"{suggestion}: {word}.", messages.SUCCESS)
            else:
                self.message_user(request, f"{suggestion}: cannot be {word} now.", messages.WARNING)
