"""The operator's actions: asked for by a form, confirmed, carried out, and shown with their undo."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from controlplane.control import ABOUT, Action, NotHere
from dashboard.access import AGENTS, LOOK, STEER, demand, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import BackendUnavailable


@require_POST
@page(LOOK)
def act(request: HttpRequest) -> HttpResponse:
    """Carry out `action` on `target`; without `confirmed` it asks first. Then back to `next` with what was done."""
    try:
        action = Action(request.POST.get("action", ""))
    except ValueError:
        return _problem(request, "There is no such action.", 400)
    about, target = ABOUT[action], request.POST.get("target", "")
    demand(request, AGENTS if about.of == "agent" else STEER)
    back = _back(request)
    if request.POST.get("confirmed") != "1":
        context = {
            "action": action.value,
            "target": target,
            "label": about.label,
            "question": about.question.format(target=target),
            "next": back,
        }
        return render(request, "dashboard/confirm.html", context)
    try:
        done = on_loop(service_of(request).desk.act, action.value, target, request.user.get_username())
    except NotHere as error:
        return _problem(request, f"Nothing was done: {error}.", 404)
    except BackendUnavailable as error:
        return _problem(request, f"Nothing was done: {error}.", 503)
    return redirect(f"{back}?done={done.entry}" if back == reverse("dashboard:overview") else back)


def _back(request: HttpRequest) -> str:
    """The page to return to: one of ours, whatever the form says."""
    wanted = request.POST.get("next", "")
    ours = wanted.startswith("/") and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    return wanted if ours else reverse("dashboard:overview")


def _problem(request: HttpRequest, text: str, status: int) -> HttpResponse:
    return render(request, "dashboard/problem.html", {"text": text, "back": _back(request)}, status=status)
