"""What all our admin pages have in common: an audit entry for every change, and pages that only show.

Rule: a change made here leaves the same trace as one made through the API or a command.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from controlplane import audit


def actor(request: HttpRequest) -> str:
    """The name under which a change is recorded."""
    return request.user.get_username()


class AuditedAdmin(admin.ModelAdmin):
    """Writes an `AuditEntry` per row added, changed or deleted, and shows `guideline_warnings` after a save."""

    def guideline_warnings(self, row: Any) -> list[str]:
        """Sentences about a row just saved that leaves the strategy's guidelines."""
        return []

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm, change: bool) -> None:
        super().save_model(request, obj, form, change)
        detail = {name: [_plain(form.initial.get(name)), _plain(form.cleaned_data[name])] for name in form.changed_data}
        audit.record(actor(request), "change" if change else "add", self.target(obj), changes=detail)
        for warning in self.guideline_warnings(obj):
            self.message_user(request, warning, messages.WARNING)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        audit.record(actor(request), "delete", self.target(obj))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for row in queryset:
            audit.record(actor(request), "delete", self.target(row))
        super().delete_queryset(request, queryset)

    def target(self, obj: Model) -> str:
        """How the audit names a row: kind and identity."""
        return f"{obj._meta.verbose_name} {getattr(obj, 'slug', None) or obj}"


class HistoryAdmin(admin.ModelAdmin):
    """Rows that are history: to be read, searched and filtered, never changed."""

    show_full_result_count = False  # counting a large table twice per page is slow
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _plain(value: Any) -> Any:
    """A form's value as JSON."""
    if isinstance(value, Model):
        return value.pk
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)
