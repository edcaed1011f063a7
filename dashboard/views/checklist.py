"""The strategy's checklist with its evidence, and the figures of the models to review."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from controlplane import audit, reports
from dashboard import checklist
from dashboard.access import STEER, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import BackendUnavailable


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Seven items, green only when true."""
    items = checklist.items(_facts(request))
    context = {
        "items": items,
        "done": sum(item.done for item in items),
        "models": reports.figures_of_models(reports.days_ago(checklist.WEEK_D)),
        "may": may(request.user),
    }
    return render(request, "dashboard/checklist.html", context)


@require_POST
@page(STEER)
def review(request: HttpRequest) -> HttpResponse:
    """Somebody has looked at the models' figures."""
    audit.record(request.user.get_username(), reports.REVIEW, "model performance")
    messages.success(request, "Noted: you have reviewed the models' performance.")
    return redirect("dashboard:checklist")


def _facts(request: HttpRequest) -> checklist.Facts:
    try:
        held = on_loop(service_of(request).desk.cache)
        return checklist.Facts(service_of(request).tables.thresholds, held["embedder"], held["entries"])
    except BackendUnavailable:
        return checklist.Facts(None, False, 0)
