"""Thresholds: every field with its limits and its source, what is wrong beside what was typed, and the history.

Rule: what is typed goes to `controlplane.thresholds` as it is, which validates; nothing typed is lost on the way back.
"""

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane import guidelines, queries, replays, thresholds
from controlplane.models import ThresholdRevision
from dashboard.access import THRESHOLDS, demand, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import Limits, ThresholdError, as_dict, changed, default, limits
from optimizer.simulation.compared import cannot_show

REVISIONS_SHOWN = 30
PREVIEW_HOURS = 8  # of recorded traffic on which a change is tried before it is saved
GROUPS = {"gpu": "GPU"}  # the others are written as they are


@page()
def edit(request: HttpRequest) -> HttpResponse:
    """The page; a POST changes what was moved and shows what became of it."""
    typed: dict[str, str] = {}
    problems: dict[str, str] = {}
    preview: dict[str, Any] = {}
    if request.method == "POST":
        demand(request, THRESHOLDS)
        typed = {name: request.POST[name] for name in (*limits(), "reason") if name in request.POST}
        if "preview" in request.POST:
            preview, problems = _preview(request, typed)
        else:
            problems = _change(request, typed)
            if not problems:
                return redirect("dashboard:thresholds")
    latest = thresholds.latest()
    node = queries.active_node()
    context = {
        "groups": _groups(typed, problems),
        "problems": problems,
        "reason": typed.get("reason", ""),
        "revision": request.POST.get("revision") or (latest.pk if latest else 0),
        "history": thresholds.history()[:REVISIONS_SHOWN],
        "may": may(request.user),
        "node": node,
        "preview": preview,
    }
    return render(request, "dashboard/thresholds.html", context, status=422 if problems else 200)


@require_POST
@page(THRESHOLDS)
def undo(request: HttpRequest, revision: int) -> HttpResponse:
    """One click: what a revision changed gets its earlier value back, by a new revision."""
    undone = get_object_or_404(ThresholdRevision, pk=revision)
    before = thresholds.current()
    try:
        after = thresholds.roll_back(undone.pk, request.user.get_username())
    except ThresholdError as error:
        messages.error(request, f"Revision {revision} cannot be undone: {error}.")
    else:
        on_loop(service_of(request).refresh)
        if after == before:
            messages.warning(request, f"Revision {revision} has been undone already.")
        else:
            messages.success(request, f"Revision {revision} is undone, and that is in force.")
    return redirect("dashboard:thresholds")


def _preview(request: HttpRequest, typed: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Start a replay of the last hours with what was moved: (what to show, what is wrong)."""
    moved = _moved(typed)
    if not moved:
        return {}, {"": "Nothing was moved."}
    now = timezone.now()
    hidden = cannot_show(moved)
    try:
        changed(thresholds.current(), moved)  # the others are checked too, before anything runs
        shown = {name: text for name, text in moved.items() if name not in hidden}
        if not shown:
            return {"hidden": hidden}, {}
        since = now - timedelta(hours=PREVIEW_HOURS)
        made = replays.start(shown, request.user.get_username(), since=since, until=now)
    except ThresholdError as error:
        return {}, dict(error.problems)
    except ConfigurationError as error:
        return {}, {"": f"No preview: {error}."}
    replays.spawn(made)
    return {"replay": made, "hidden": hidden, "hours": PREVIEW_HOURS}, {}


def _moved(typed: dict[str, str]) -> dict[str, str]:
    """What was typed that is not in force."""
    shown = as_dict(thresholds.current())
    return {name: text for name, text in typed.items() if name in shown and text.strip() != text_of(shown[name])}


def _change(request: HttpRequest, typed: dict[str, str]) -> dict[str, str]:
    """Store what was moved; field -> what is wrong with it, empty when it is in force."""
    latest = thresholds.latest()
    if request.POST.get("revision") != str(latest.pk if latest else 0):
        return {"": "Somebody changed the thresholds meanwhile. Look at the history below, then save again."}
    before = thresholds.current()
    shown = as_dict(before)
    moved = _moved(typed)
    if not moved:
        return {"": "Nothing was moved."}
    try:
        after = thresholds.change(moved, request.user.get_username(), typed.get("reason", ""))
    except ThresholdError as error:
        problems = dict(error.problems)
        if not typed.get("reason", "").strip():
            problems["reason"] = "say why"
        return problems
    on_loop(service_of(request).refresh)
    if after == before:
        messages.warning(request, "Those values were in force already.")
        return {}
    names = [name for name, value in as_dict(after).items() if value != shown[name]]
    messages.success(request, f"In force: {', '.join(f'{n} = {text_of(as_dict(after)[n])}' for n in names)}.")
    service = service_of(request)
    for warning in guidelines.of_thresholds(before, after, queries.models_of(service.backend_name)):
        messages.warning(request, warning)
    return {}


def _groups(typed: dict[str, str], problems: dict[str, str]) -> list[tuple[str, list[dict[str, Any]]]]:
    in_force = as_dict(thresholds.current())
    grouped: dict[str, list[dict[str, Any]]] = {}
    for name, limit in limits().items():
        grouped.setdefault(limit.group, []).append(field(name, limit, in_force[name], typed, problems))
    return [(GROUPS.get(group, group.capitalize()), fields) for group, fields in grouped.items()]


def field(name: str, limit: Limits, value: Any, typed: dict[str, str], problems: dict[str, str]) -> dict[str, Any]:
    """One threshold as a form shows it; `value` is in force, `typed` counts before it."""
    standard = default(name)
    span = f"{text_of(limit.low)} to {text_of(limit.high)}" if limit.low is not None else ", ".join(limit.choices)
    return {
        "name": name,
        "label": name.replace("_", " "),
        "kind": "flag" if isinstance(value, bool) else "word" if limit.choices else "number",
        "value": typed.get(name, text_of(value)),
        "in_force": text_of(value),
        "default": {True: "on", False: "off"}[standard] if isinstance(standard, bool) else text_of(standard),
        "moved": value != standard,
        "limit": limit,
        "low": text_of(limit.low) if limit.low is not None else "",
        "high": text_of(limit.high) if limit.high is not None else "",
        "step": "1" if isinstance(standard, int) else "any",
        "span": span or "on or off",
        "problem": problems.get(name, ""),
    }


def text_of(value: Any) -> str:
    """A value as it stands in a form field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
