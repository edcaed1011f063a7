"""The overview, and who waits: the pages that are about this moment."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from controlplane import history
from controlplane.control import ABOUT, Action
from controlplane.models import AuditEntry, Tier
from controlplane.publisher import FIELDS
from dashboard import charts
from dashboard.access import may, page
from dashboard.engine import on_loop, service_of
from dashboard.views import suggestions
from optimizer.core.errors import BackendUnavailable

MOST_WAITING = 200  # rows of the waiting page
LATEST_ACTIONS = 5


@page()
def overview(request: HttpRequest) -> HttpResponse:
    """Who holds the GPU, why the others wait, and what the last quarter of an hour looked like."""
    try:
        models, starting = list(service_of(request).engine.catalogue().models), ""
    except BackendUnavailable as error:
        models, starting = [], str(error)
    allowed = may(request.user)
    data = {
        "colours": charts.colours(models),
        "figures": charts.all_of(models),
        "fields": FIELDS,
        "may": allowed,
        "actions": {a.value: {"label": about.label, "question": about.question} for a, about in ABOUT.items()},
    }
    context = {
        "page": data,
        "starting": starting,
        "may": allowed,
        "tiers": [(tier, list(tier.agents.only("slug", "name", "tier"))) for tier in Tier.objects.order_by("-rank")],
        "latest": latest_actions(),
        "done": _done(request.GET.get("done", "")),
        "ranges": [(name, chosen.label) for name, chosen in history.RANGES.items()],
        **suggestions.context(request),
    }
    return render(request, "dashboard/overview.html", context)


@page()
def series(request: HttpRequest) -> HttpResponse:
    """The charts' stored figures of ?range=, as JSON."""
    wanted = request.GET.get("range", "")
    if wanted not in history.RANGES:
        return JsonResponse({"error": f"range must be one of {', '.join(history.RANGES)}"}, status=400)
    return JsonResponse(history.read(wanted))


@page()
def waiting(request: HttpRequest) -> HttpResponse:
    """Every request that waits, oldest first, with a way to cancel it."""
    rows, total = on_loop(service_of(request).desk.waiting, MOST_WAITING)
    context = {"rows": rows, "total": total, "most": MOST_WAITING, "may": may(request.user)}
    return render(request, "dashboard/waiting.html", context)


def latest_actions() -> list[dict[str, Any]]:
    """What people did by hand lately, with what undoes it."""
    entries = AuditEntry.objects.filter(action__in=[action.value for action in ABOUT])[:LATEST_ACTIONS]
    return [_shown(entry) for entry in entries]


def _done(number: str) -> dict[str, Any] | None:
    entry = AuditEntry.objects.filter(pk=int(number)).first() if number.isdigit() and len(number) < 12 else None
    return _shown(entry) if entry and entry.action in set(Action) else None


def _shown(entry: AuditEntry) -> dict[str, Any]:
    about = ABOUT[Action(entry.action)]
    target = entry.target.removeprefix(f"{about.of} ") if about.of else ""
    undo = about.undo
    return {
        "at": entry.at,
        "actor": entry.actor,
        "sentence": about.done.format(target=target),
        "undo": undo.value if undo else "",
        "undo_label": ABOUT[undo].label if undo else "",
        "target": target,
        "of": about.of,
    }
