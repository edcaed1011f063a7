"""Thresholds: one page to change them, and the history of revisions with an undo each.

Rule: every field of the page comes from `optimizer.core.thresholds.limits()`; a new threshold needs no code here.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from controlplane import guidelines, queries, thresholds
from controlplane.admin.base import HistoryAdmin, actor
from controlplane.models import LanguageModel, ThresholdRevision
from optimizer.core.thresholds import Limits, ThresholdError, Thresholds, as_dict, default, limits


class ThresholdsForm(forms.Form):
    """All thresholds, grouped, with the limits of each; `revision` notices that someone else was faster."""

    reason = forms.CharField(
        max_length=500, help_text="Why; it is kept with the revision.", widget=forms.TextInput(attrs={"size": 80})
    )
    revision = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, in_force: Thresholds, data: Any = None) -> None:
        latest = thresholds.latest()
        self._latest = latest.pk if latest else 0
        super().__init__(data, initial={**as_dict(in_force), "revision": self._latest})
        self._in_force = in_force
        for name, limit in limits().items():
            self.fields[name] = _field(name, limit)

    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """(group, its fields), in the order of declaration."""
        grouped: dict[str, list[forms.BoundField]] = {}
        for name, limit in limits().items():
            grouped.setdefault(limit.group, []).append(self[name])
        return [(group.title() if group != "gpu" else "GPU", fields) for group, fields in grouped.items()]

    def clean_revision(self) -> int:
        if self.cleaned_data["revision"] != self._latest:
            raise forms.ValidationError("Someone changed the thresholds meanwhile: load the page again.")
        return self._latest

    def changes(self) -> dict[str, Any]:
        """What the person moved."""
        before = as_dict(self._in_force)
        return {name: self.cleaned_data[name] for name in before if self.cleaned_data[name] != before[name]}


@admin.register(ThresholdRevision)
class ThresholdRevisionAdmin(HistoryAdmin):
    list_display = ("__str__", "at", "author", "reason", "summary", "undo_button")
    list_display_links = ("__str__",)
    list_filter = ("author", "at")
    search_fields = ("author", "reason", "changes")
    date_hierarchy = "at"
    list_select_related = ("reverted_from",)
    fields = ("at", "author", "reason", "reverted_from", "summary", "in_force")
    readonly_fields = ("at", "summary", "in_force")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("controlplane.add_thresholdrevision")

    def get_urls(self) -> list[Any]:
        undo = path(
            "<int:revision_id>/undo/", self.admin_site.admin_view(self.undo), name="controlplane_thresholdrevision_undo"
        )
        return [undo, *super().get_urls()]

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        shown = super().get_list_display(request)
        return shown if self.has_add_permission(request) else shown[:-1]

    @admin.display(description="changes")
    def summary(self, revision: ThresholdRevision) -> SafeString:
        return format_html_join(
            "", "{}: {} → <b>{}</b><br>", ((name, old, new) for name, (old, new) in revision.changes.items())
        )

    @admin.display(description="values in force after it")
    def in_force(self, revision: ThresholdRevision) -> SafeString:
        set_by_people = set(revision.explicit)
        return format_html_join(
            "",
            "{}: {}{}<br>",
            ((name, value, " (set)" if name in set_by_people else "") for name, value in revision.values.items()),
        )

    @admin.display(description="")
    def undo_button(self, revision: ThresholdRevision) -> SafeString:
        # The list is a form with its CSRF token already; the button only sends it elsewhere.
        url = reverse("admin:controlplane_thresholdrevision_undo", args=[revision.pk])
        return format_html('<button type="submit" class="button" formaction="{}">Undo this change</button>', url)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """The page to change thresholds: what it stores is a new revision."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        in_force = thresholds.current()
        form = ThresholdsForm(in_force, request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid() and self._changed(request, form, in_force):
            return HttpResponseRedirect(reverse("admin:controlplane_thresholdrevision_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Change thresholds",
            "form": form,
            "opts": self.opts,
            "node": queries.active_node(),
        }
        return TemplateResponse(request, "admin/controlplane/thresholdrevision/edit.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "History of thresholds", **(extra_context or {})})

    def undo(self, request: HttpRequest, revision_id: int) -> HttpResponse:
        """Undo one revision, by a new one."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_add_permission(request):
            raise PermissionDenied
        revision = get_object_or_404(ThresholdRevision, pk=revision_id)
        before = thresholds.current()
        try:
            after = thresholds.roll_back(revision.pk, actor(request))
        except ThresholdError as error:
            self.message_user(request, f"{revision} cannot be undone: {error}", messages.ERROR)
        else:
            if after == before:
                self.message_user(request, f"{revision} has been undone already.", messages.WARNING)
            else:
                self.message_user(request, f"{revision} undone.", messages.SUCCESS)
                self._warn(request, before, after)
        return HttpResponseRedirect(reverse("admin:controlplane_thresholdrevision_changelist"))

    def _changed(self, request: HttpRequest, form: ThresholdsForm, before: Thresholds) -> bool:
        changes = form.changes()
        if not changes:
            form.add_error(None, "Nothing was changed.")
            return False
        try:
            after = thresholds.change(changes, actor(request), form.cleaned_data["reason"])
        except ThresholdError as error:
            for name, problem in error.problems.items():
                form.add_error(name if name in form.fields else None, problem)
            return False
        self.message_user(request, f"Changed: {', '.join(changes)}.", messages.SUCCESS)
        self._warn(request, before, after)
        return True

    def _warn(self, request: HttpRequest, before: Thresholds, after: Thresholds) -> None:
        node = queries.active_node()
        backend = queries.stored_backend(node.kind) if node else LanguageModel.Backend.OLLAMA
        for warning in guidelines.of_thresholds(before, after, LanguageModel.objects.filter(backend=backend)):
            self.message_user(request, warning, messages.WARNING)


def _field(name: str, limit: Limits) -> forms.Field:
    value = default(name)
    about = {"label": _label(name, limit), "help_text": _help(limit, value)}
    if isinstance(value, bool):
        return forms.BooleanField(required=False, **about)
    if limit.choices:
        return forms.ChoiceField(choices=[(word, word) for word in limit.choices], **about)
    if isinstance(value, int):
        return forms.IntegerField(min_value=limit.low, max_value=limit.high, **about)
    any_step = forms.NumberInput(attrs={"step": "any"})
    return forms.FloatField(min_value=limit.low, max_value=limit.high, widget=any_step, **about)


def _label(name: str, limit: Limits) -> str:
    """`gpu_memory_mb` as "GPU memory (MB)"."""
    words = name.split("_")
    unit = ""
    if len(words) > 1 and words[-1] == limit.unit.lower():
        words, unit = words[:-1], f" ({limit.unit})"
    shown = [word.upper() if word in ("gpu", "ttl") else word for word in words]
    return shown[0][0].upper() + " ".join(shown)[1:] + unit


def _help(limit: Limits, standard: Any) -> str:
    unit = f" {limit.unit}" if limit.unit else ""
    span = f"{_figure(limit.low)} to {_figure(limit.high)}{unit}, " if limit.low is not None else ""
    return f"{limit.help} ({span}default {_figure(standard)}; {limit.source})"


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:,.12g}"
    return str(value)
