"""One replay: how far it is, what it showed, and then: put into force, watched, taken back.

Rule: what the tuner itself would propose may be applied by whoever may decide on suggestions; any other change only by
those who may change thresholds. Must not know: how a replay works, how a change is stored.
"""

import time
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from controlplane import effects, recording, replays, suggestions
from controlplane.models import Replay, Suggestion
from dashboard import replay_charts, side_by_side
from dashboard.access import THRESHOLDS, TRY, may, page
from dashboard.engine import on_loop, service_of
from dashboard.views.thresholds import text_of
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import ThresholdError

SETTLE = timedelta(minutes=15)  # when there are enough requests to look at, on a busy system


@page()
def show(request: HttpRequest, replay: int) -> HttpResponse:
    """The progress, or the result with what can be done with it."""
    return _page(request, _found(replay))


@page()
def progress(request: HttpRequest, replay: int) -> JsonResponse:
    """How far it is; asked a few times a second."""
    replays.find_lost()
    found = _found(replay)
    return JsonResponse({"state": found.state, "done": found.done, "total": found.total, "said": said(found)})


@page()
def table(request: HttpRequest, replay: int) -> HttpResponse:
    """The result alone, for another page to show."""
    found = _found(replay)
    return render(request, "dashboard/_replay_table.html", {"replay": found, **table_of(found)})


@require_POST
@page(TRY)
def cancel(request: HttpRequest, replay: int) -> HttpResponse:
    """Stop it."""
    found = _found(replay)
    if replays.cancel(found):
        messages.success(request, "The replay is cancelled.")
    else:
        messages.warning(request, "The replay had ended already.")
    return redirect("dashboard:replay-show", found.pk)


@require_POST
@page()
def apply(request: HttpRequest, replay: int) -> HttpResponse:
    """Put its change into force, with a reason."""
    found = _found(replay)
    _demand_decision(request, found)
    reason = request.POST.get("reason", "")
    try:
        replays.apply(found, request.user.get_username(), reason)
    except ThresholdError as error:
        problem = error.problems.get("reason") or str(error)
        return _page(request, found, {"problem": f"Nothing was changed: {problem}.", "reason": reason}, status=422)
    except ConfigurationError as error:
        return _page(request, found, {"problem": f"Nothing was changed: {error}.", "reason": reason}, status=409)
    on_loop(service_of(request).refresh)
    messages.success(request, f"In force: {found.title}.")
    return redirect("dashboard:replay-show", found.pk)


@require_POST
@page()
def roll_back(request: HttpRequest, replay: int) -> HttpResponse:
    """One click: what it changed gets its earlier value back."""
    found = _found(replay)
    _demand_decision(request, found)
    try:
        done = found.suggestion is not None and suggestions.roll_back(found.suggestion, request.user.get_username())
    except ThresholdError as error:
        return _page(request, found, {"problem": f"It cannot be rolled back: {error}."}, status=409)
    if done:
        on_loop(service_of(request).refresh)
        messages.success(request, f"Rolled back: {found.title} is in force no more.")
    else:
        messages.warning(request, "It is not in force: there is nothing to roll back.")
    return redirect("dashboard:replay-show", found.pk)


def may_decide(user: Any, replay: Replay) -> bool:
    """Whether this user may put this replay's change into force, or take it back."""
    return user.has_perm(THRESHOLDS) or (user.has_perm(TRY) and replays.proved(replay))


def said(replay: Replay) -> str:
    """A replay's progress in words."""
    if not replay.total:
        return "Reading the traffic…"
    return f"{replay.done} of {replay.total} pieces"


def table_of(replay: Replay) -> dict[str, Any]:
    """The result's rows for a template; nothing before it is done."""
    if replay.state != Replay.State.DONE:
        return {}
    result = replay.result
    return {
        "rows": side_by_side.rows(result),
        "tiers": side_by_side.tiers(result),
        "verdict": side_by_side.verdict(result),
        "steps": [(name, text_of(result["was"][name]), text_of(value)) for name, value in replay.change.items()],
    }


def _found(replay: int) -> Replay:
    wanted = Replay.objects.select_related("traffic", "suggestion", "suggestion__revision").defer("traffic__lines")
    return get_object_or_404(wanted, pk=replay)


def _demand_decision(request: HttpRequest, replay: Replay) -> None:
    if not may_decide(request.user, replay):
        raise PermissionDenied("only a change that a replay proved may be decided on without changing thresholds")


def _page(
    request: HttpRequest, found: Replay, more: dict[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    done = found.state == Replay.State.DONE
    context = {
        "replay": found,
        "said": said(found),
        "decides": done and may_decide(request.user, found),
        "outdated": replays.outdated(found) if done and found.suggestion is None else [],
        "figures": replay_charts.of_result(found.result) if done else {},
        "since": _since(found) if done else None,
        "may": may(request.user),
        **table_of(found),
        **(more or {}),
    }
    return render(request, "dashboard/replay_run.html", context, status=status)


def _since(replay: Replay) -> dict[str, Any] | None:
    """What really happened since it was applied, against what was predicted; None when it was not."""
    suggestion = replay.suggestion
    if suggestion is None or suggestion.revision is None:
        return None
    ended_at = suggestion.decided_at if suggestion.state == Suggestion.State.ROLLED_BACK else None
    now = ended_at.timestamp() if ended_at else time.time()
    effect = effects.of_change(suggestion.revision.at.timestamp(), now, recording.setting()[1])
    foretold = {row.label: row.difference for row in side_by_side.rows(replay.result)}
    return {
        "span": f"{effect.span_s / 60:.0f} min" if effect.span_s >= 120 else f"{effect.span_s:.0f} s",
        "early": effect.span_s < SETTLE.total_seconds(),
        "rows": [(row, foretold.get(row.label, "")) for row in side_by_side.of_figures(effect.before, effect.after)],
        "requests": effect.after.requests,
        "checked": suggestion.evidence.get("effect"),
        "over": ended_at is not None,
    }
