"""Assignments: each agent's tier held against its measured complexity and outcomes, with suggested moves.

Rule: it only shows; moving an agent is the admin's, one link away. Must not know: how an assignment is judged.
"""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane.profiles import agent_profiles
from dashboard.access import page

DAYS = {"1": 1.0, "7": 7.0, "30": 30.0}


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every agent, suggested reassignments first; answers of the simulated card count only when asked for."""
    days = request.GET.get("days", "7")
    days = days if days in DAYS else "7"
    simulated = request.GET.get("simulated") == "1"
    found = agent_profiles(DAYS[days], simulated)
    context = {
        "profiles": found,
        "suggested": sum(bool(profile.suggested) for profile in found),
        "scored": sum(profile.complexity is not None for profile in found),
        "days": days,
        "choices": list(DAYS),
        "simulated": simulated,
    }
    return render(request, "dashboard/profiles.html", context)
