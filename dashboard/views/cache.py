"""The answer cache: what it holds, what it saved, semantic hits to look over, and taking answers out of use."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from controlplane import cached_answers, reports
from controlplane.models import CachedAnswer
from dashboard.access import INVALIDATE, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import BackendUnavailable

PER_PAGE = 50
SEMANTIC_SHOWN = 20
FIGURES_DAYS = 1.0
SPANS = {"hour": 1 / 24, "week": 7.0}  # hit rates besides that of the day


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Figures, semantic hits, entries."""
    allowed = may(request.user)
    agent = request.GET.get("agent", "").strip()
    text = request.GET.get("text", "").strip() if allowed["prompts"] else ""
    number = request.GET.get("page", "1")
    number = min(max(int(number), 1), 100_000) if number.isdigit() and len(number) < 7 else 1
    start = (number - 1) * PER_PAGE
    rows = list(reports.cached_answers(agent, text)[start : start + PER_PAGE + 1])
    kept = {name: value for name, value in (("agent", agent), ("text", text)) if value}
    context = {
        "figures": reports.cache_figures(reports.days_ago(FIGURES_DAYS)),
        "rates": [(name, reports.cache_figures(reports.days_ago(days))["rate"]) for name, days in SPANS.items()],
        "memory": _memory(request),
        "semantic": [_semantic(record) for record in reports.semantic_hits(SEMANTIC_SHOWN)],
        "rows": rows[:PER_PAGE],
        "agent": agent,
        "text": text,
        "number": number,
        "newer": f"?{urlencode({**kept, 'page': number - 1})}" if number > 1 else "",
        "older": f"?{urlencode({**kept, 'page': number + 1})}" if len(rows) > PER_PAGE else "",
        "may": allowed,
    }
    return render(request, "dashboard/cache.html", context)


@require_POST
@page(INVALIDATE)
def invalidate(request: HttpRequest) -> HttpResponse:
    """Take one answer (`key`), an agent's (`agent`) or all (`all=1`) out of use, in the engine too."""
    key, agent = request.POST.get("key", ""), request.POST.get("agent", "")
    answers = CachedAnswer.objects.all()
    if key:
        answers = answers.filter(pk=key)
    elif agent:
        answers = answers.filter(agent=agent)
    elif request.POST.get("all") != "1":
        messages.error(request, "Nothing was named: no answer was invalidated.")
        return redirect("dashboard:cache")
    on_loop(service_of(request).flush)  # what was answered a moment ago is not in the database yet
    count = cached_answers.invalidate(answers, actor=request.user.get_username())
    on_loop(service_of(request).refresh)
    messages.success(request, f"{count} answer{'' if count == 1 else 's'} will not be given again.")
    return redirect("dashboard:cache")


def _memory(request: HttpRequest) -> dict[str, Any] | None:
    """What the engine holds now; None while it starts."""
    try:
        return on_loop(service_of(request).desk.cache)
    except BackendUnavailable:
        return None


def _semantic(record: Any) -> dict[str, Any]:
    values: dict[str, Any] = next(
        (d["values"] for d in record.decisions if d.get("stage") == "cache" and "cached_question" in d["values"]), {}
    )
    return {"record": record, "values": values, "asked": record.prompt_original.removeprefix("[user]\n")}
