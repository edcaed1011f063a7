"""The hardware advisor: what other hardware would have meant for the recorded traffic, and asking again."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from controlplane import advice, audit, chores
from dashboard.access import STEER, demand, may, page

KINDS = {
    "vram": "memory",
    "slots": "slots",
    "ram": "model files",
    "quantisation": "quantisation",
    "cpu": "processor",
    "node": "node",
}


@page()
def index(request: HttpRequest) -> HttpResponse:
    """The last answers; POST works them out anew, in a process of its own at low priority."""
    if request.method == "POST":
        return _start(request)
    row = advice.last()
    found = row.result if row else {}
    context = {
        "state": _state(),
        "row": row,
        "found": found,
        "answers": [_shown(answer) for answer in found.get("answers", [])],
        "may": may(request.user),
    }
    return render(request, "dashboard/advisor.html", context)


@page()
def state(request: HttpRequest) -> JsonResponse:
    """How far the work is, for the page's progress bar."""
    return JsonResponse(_state())


def _start(request: HttpRequest) -> HttpResponse:
    demand(request, STEER)
    if advice.start():
        audit.record(request.user.get_username(), "advise", "hardware")
        messages.success(request, "It is being worked out; this page shows how far it is.")
    else:
        messages.error(request, "It is being worked out already.")
    return redirect("dashboard:advisor")


def _state() -> dict[str, Any]:
    """`ended` changes when new answers are there."""
    row = advice.last()
    busy = chores.is_held(advice.CHORE)
    return {
        "busy": busy,
        "done": row.done if row and busy else 0.0,
        "ended": row.ended_at.isoformat() if row and row.ended_at else "",
    }


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    effect = answer["effect"]
    if answer["worth_it"]:
        word, look = "worth it", "good"
    elif effect["low"] > 1.0:
        word, look = "worse", "bad"
    else:
        word, look = "no clear gain", "quiet"
    return {**answer, "what": KINDS.get(answer["kind"], answer["kind"]), "word": word, "look": look}
