"""Who may see and do what on the pages: Django permissions, given by the roles viewer, operator and admin.

Rule: a page asks for a permission, never for a role's name, so that an admin may compose other roles.
Must not know: what the pages show.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from optimizer.core.errors import BackendUnavailable

LOOK = "controlplane.view_requestrecord"  # every page, and the live channel
STEER = "controlplane.change_node"  # pause and drain; load, pin and unload models; cancel requests
TASKS = "controlplane.change_durabletask"  # cancel durable tasks and batches
AGENTS = "controlplane.change_agent"  # pause and resume one
ADD_AGENTS = "controlplane.add_agent"  # with AGENTS: import them
ISSUE = "controlplane.add_agentkey"
REVOKE = "controlplane.change_agentkey"
INVALIDATE = "controlplane.delete_cachedanswer"
THRESHOLDS = "controlplane.add_thresholdrevision"
DECIDE = "controlplane.change_suggestion"  # apply, dismiss and roll back suggestions
PROMPTS = "controlplane.read_prompts"
TRY = "controlplane.change_suggestion"  # replay a change; apply what a replay or the tuner proved, and take it back

_NAMES = {
    "steer": STEER,
    "tasks": TASKS,
    "agents": AGENTS,
    "add_agents": ADD_AGENTS,
    "issue": ISSUE,
    "revoke": REVOKE,
    "invalidate": INVALIDATE,
    "thresholds": THRESHOLDS,
    "decide": DECIDE,
    "prompts": PROMPTS,
    "try": TRY,
}

Page = Callable[..., HttpResponse]


def page(permission: str = LOOK) -> Callable[[Page], Page]:
    """A page for signed-in people with `permission`: others are asked to sign in, or refused."""

    def decorate(view: Page) -> Page:
        @login_required
        @wraps(view)
        def guarded(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
            demand(request, permission)
            try:
                return view(request, *arguments, **named)
            except BackendUnavailable as error:
                context = {"text": f"There is no engine to ask: {error}.", "back": reverse("dashboard:overview")}
                return render(request, "dashboard/problem.html", context, status=503)

        return guarded

    return decorate


def demand(request: HttpRequest, permission: str) -> None:
    """Raises PermissionDenied unless the user has it."""
    if not request.user.has_perm(permission):
        raise PermissionDenied(permission)


def may(user: Any) -> dict[str, bool]:
    """What the user may do, by short name, for templates: a control that would be refused is not shown."""
    return {name: user.has_perm(permission) for name, permission in _NAMES.items()}
