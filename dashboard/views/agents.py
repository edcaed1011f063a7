"""Agents: all of them in a table, and one with its figures, requests and keys.

Rule: a key is shown once, in the answer to the form that made it, and never stored or put into a message.
A key with the admin scope may be renewed or ended only by those who may do what it can do.
"""

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane import guidelines, keys, reports
from controlplane.models import Agent, AgentKey, Tier
from dashboard.access import ISSUE, REVOKE, THRESHOLDS, demand, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import BackendUnavailable
from optimizer.core.quota import Use

FIGURES_DAYS = 1.0
LATEST_REQUESTS = 20
LONGEST_DAYS = 3650
OVERLAPS_H = ("0", "1", "24", "168")  # how long a rotated key may go on working
_SORTS = {
    "name": lambda row: row["agent"].name.lower(),
    "requests": lambda row: -(row["figures"].get("requests") or 0),
    "gpu": lambda row: -(row["figures"].get("gpu_s") or 0),
    "slow": lambda row: -(row["figures"].get("mean_s") or 0),
    "bad": lambda row: -(row["figures"].get("bad") or 0),
}


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every agent with its figures of the last day."""
    tier, sort = request.GET.get("tier", ""), request.GET.get("sort", "name")
    figures = reports.figures_of_agents(reports.days_ago(FIGURES_DAYS))
    live = reports.live_key_counts()
    agents = Agent.objects.select_related("tier")
    rows = [
        {"agent": agent, "figures": figures.get(agent.slug, {}), "keys": live.get(agent.pk, 0)}
        for agent in (agents.filter(tier_id=tier) if tier else agents)
    ]
    rows.sort(key=_SORTS.get(sort, _SORTS["name"]))
    context = {
        "rows": rows,
        "tier": tier,
        "sort": sort,
        "tiers": Tier.objects.order_by("-rank"),
        "sorts": list(_SORTS),
        "may": may(request.user),
    }
    return render(request, "dashboard/agents.html", context)


@page()
def show(request: HttpRequest, slug: str) -> HttpResponse:
    """One agent."""
    return _page(request, get_object_or_404(Agent.objects.select_related("tier"), slug=slug))


@require_POST
@page(ISSUE)
def issue(request: HttpRequest, slug: str) -> HttpResponse:
    """Make a key and show it, this once."""
    agent = get_object_or_404(Agent.objects.select_related("tier"), slug=slug)
    days = request.POST.get("days", "").strip()
    if days and not (days.isdigit() and 1 <= int(days) <= LONGEST_DAYS):
        context = {"key_problem": f"Days must be a whole number from 1 to {LONGEST_DAYS}, or empty."}
        return _page(request, agent, context, status=422)
    expires = timezone.now() + timedelta(days=int(days)) if days else None
    token = keys.issue(agent, request.POST.get("name", "").strip(), expires, actor=request.user.get_username())
    return _with_token(request, agent, token)


@require_POST
@page(ISSUE)
def rotate(request: HttpRequest, slug: str, key: int) -> HttpResponse:
    """A new key in the place of an old one, which goes on working for as many `hours` as the form says."""
    agent = get_object_or_404(Agent.objects.select_related("tier"), slug=slug)
    old = _live(request, agent, key)
    if old is None:
        return redirect("dashboard:agent", slug)
    hours = request.POST.get("hours", "0")
    if hours not in OVERLAPS_H:
        return _page(request, agent, {"key_problem": f"Hours must be one of {', '.join(OVERLAPS_H)}."}, status=422)
    token = keys.rotate(old, timedelta(hours=int(hours)), actor=request.user.get_username())
    return _with_token(request, agent, token)


@require_POST
@page(REVOKE)
def revoke(request: HttpRequest, slug: str, key: int) -> HttpResponse:
    """End a key at once."""
    agent = get_object_or_404(Agent, slug=slug)
    old = _live(request, agent, key)
    if old is not None:
        keys.revoke(old, actor=request.user.get_username())
        on_loop(service_of(request).refresh)
        messages.success(request, f"{old} is revoked: calls with it are refused from now on.")
    return redirect("dashboard:agent", slug)


def _live(request: HttpRequest, agent: Agent, key: int) -> AgentKey | None:
    """A key that can still be renewed or ended by this user; None, with a message, when it has ended."""
    demand(request, REVOKE)
    found = get_object_or_404(AgentKey, pk=key, agent=agent)
    if keys.Scope.ADMIN in found.scopes and not request.user.has_perm(THRESHOLDS):
        raise PermissionDenied("a key with the admin scope is an administrator's")
    if found.revoked_at is not None:
        messages.warning(request, f"{found} had been revoked already.")
        return None
    return found


def _with_token(request: HttpRequest, agent: Agent, token: str) -> HttpResponse:
    on_loop(service_of(request).refresh)
    response = _page(request, agent, {"token": token})
    response["Cache-Control"] = "no-store"
    return response


def _page(request: HttpRequest, agent: Agent, more: dict[str, Any] | None = None, *, status: int = 200) -> HttpResponse:
    since = reports.days_ago(FIGURES_DAYS)
    now = timezone.now()
    figures = reports.figures_of_agents(since)
    context = {
        "agent": agent,
        "figures": figures.get(agent.slug, {}),
        "fairness": reports.fairness(agent, figures),
        "times": reports.times_of_agent(agent.slug, since),
        "limits": _limits(request, agent),
        "keys": [{"key": key, "state": key.state(now)} for key in agent.keys.all()],
        "latest": reports.requests(reports.Filter(agent=agent.slug)).filter(agent=agent.slug)[:LATEST_REQUESTS],
        "remarks": guidelines.of_agent(agent, Tier.objects.all()),
        "may": may(request.user),
        **(more or {}),
    }
    return render(request, "dashboard/agent.html", context, status=status)


def _limits(request: HttpRequest, agent: Agent) -> list[str]:
    """The agent's own limits with what it has taken of each, in words."""
    try:
        use = on_loop(service_of(request).desk.use_of, agent.slug)
    except BackendUnavailable:
        use = Use(0, None, None)  # starting
    figures = (
        (agent.requests_per_minute, use.requests, "requests a minute"),
        (agent.tokens_per_minute, use.tokens, "tokens a minute"),
        (agent.max_concurrent, use.concurrent, "requests at once"),
    )
    return [f"{taken or 0:.0f} of {limit} {what}" for limit, taken, what in figures if limit]
