"""Suggestions on the overview: what the rules and the tuner propose, with Apply, Try in replay, Dismiss and Roll back.

Rule: one card, rendered here for the page and again for its refresh; decisions go through `controlplane.suggestions`,
which audits them, and an applied change is in force before the answer is sent.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane import suggestions
from controlplane.models import Suggestion
from dashboard.access import DECIDE, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import BackendUnavailable
from optimizer.core.thresholds import ThresholdError

MOST_SHOWN = 6
APPLIED_FOR = timedelta(days=2)  # how long an applied one can be rolled back from here; then in the admin
_SEVERITIES = ("high", "medium", "low")
_SAID = {"apply": "In force: {}.", "dismiss": "Dismissed: {}.", "roll-back": "Rolled back: {}."}


@page()
def card(request: HttpRequest) -> HttpResponse:
    """The card alone, for a page that refreshes it."""
    return render(request, "dashboard/_suggestions.html", context(request))


def context(request: HttpRequest) -> dict[str, Any]:
    """What the card needs: open ones, the most severe first, and those applied lately."""
    found = list(Suggestion.objects.filter(state=Suggestion.State.OPEN))
    found.sort(key=lambda suggestion: _SEVERITIES.index(suggestion.severity))  # stable: latest first within
    applied = Suggestion.objects.filter(state=Suggestion.State.APPLIED, decided_at__gte=timezone.now() - APPLIED_FOR)
    return {
        "suggestions": [_shown(suggestion) for suggestion in found[:MOST_SHOWN]],
        "open_suggestions": len(found),
        "more_suggestions": max(0, len(found) - MOST_SHOWN),
        "applied": applied.exclude(revision=None).order_by("-decided_at")[:3],
        "may": may(request.user),
    }


@require_POST
@page(DECIDE)
def decide(request: HttpRequest, number: int, decision: str) -> HttpResponse:
    """Apply, dismiss or roll back one, and say what became of it."""
    if decision not in suggestions.DECISIONS:
        raise Http404
    try:
        row = suggestions.decide(number, decision, request.user.get_username())
    except (suggestions.NotThere, suggestions.Undecidable) as error:
        messages.warning(request, f"Nothing was done: {error}.")
    except ThresholdError as error:
        messages.error(request, f"Nothing was done: {error}.")
    else:
        _take_up(request)
        messages.success(request, _SAID[decision].format(row["title"]))
    return redirect("dashboard:overview")


def _take_up(request: HttpRequest) -> None:
    with suppress(BackendUnavailable):  # an engine that is starting reads what is stored
        on_loop(service_of(request).refresh)


def _shown(suggestion: Suggestion) -> dict[str, Any]:
    change = {name: _text(value) for name, value in suggestion.change.items()}
    return {
        "row": suggestion,
        "change": change,
        "replay": urlencode(change),
        "question": f"Put {', '.join(f'{n} = {v}' for n, v in change.items())} into force now? It can be rolled back.",
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
