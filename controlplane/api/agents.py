"""/control/v1/agents: the agents, listed for every key, written with an admin key.

Rule: a change takes effect in the engine before the answer is sent.
Must not know: how the engine uses a profile.
"""

from dataclasses import asdict
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError

from controlplane import audit
from controlplane.api.endpoint import Call, endpoint
from controlplane.api.schemas import AgentIn
from controlplane.models import Agent
from controlplane.wire.errors import HttpError, Problem
from optimizer.core.errors import InvalidRequest
from optimizer.core.request import Priority

_FIELDS = tuple(AgentIn.model_fields)


async def index(call: Call) -> Any:
    """All agents, by slug; ?tier= narrows."""
    return {"agents": await call.service.in_database(_listed, call.request.GET.get("tier", ""))}


async def create(call: Call) -> Any:
    """Make an agent."""
    call.require_admin()
    given: AgentIn = call.body(AgentIn)
    if not given.slug:
        raise InvalidRequest("slug must not be empty", param="slug")
    made = await call.service.in_database(_created, given, call.agent)
    await call.service.refresh()
    return 201, made


async def show(call: Call, slug: str) -> Any:
    """One agent, and what it has taken of its limits."""
    shown = await call.service.in_database(lambda: as_json(_found(slug)))
    return {**shown, "use": asdict(await call.service.desk.use_of(slug))}


async def update(call: Call, slug: str) -> Any:
    """Change the fields that are given; PUT sets the others to their defaults."""
    call.require_admin()
    given: AgentIn = call.body(AgentIn)
    fields = set(_FIELDS) if call.request.method == "PUT" else given.model_fields_set
    changed = await call.service.in_database(_updated, slug, given, fields - {"slug"}, call.agent)
    await call.service.refresh()
    return changed


async def delete(call: Call, slug: str) -> Any:
    """Delete an agent and its keys; its history stays."""
    call.require_admin()
    await call.service.in_database(_deleted, slug, call.agent)
    await call.service.refresh()
    return 204, None


def as_json(agent: Agent) -> dict[str, Any]:
    """An agent as the API shows it."""
    data = {name: getattr(agent, name) for name in _FIELDS if name not in ("tier", "priority")}
    return {
        **data,
        "tier": agent.tier_id,
        "priority": Priority(agent.priority).name.lower(),
        "created_at": agent.created_at.isoformat(),
        "updated_at": agent.updated_at.isoformat(),
    }


def _listed(tier: str) -> list[dict[str, Any]]:
    agents = Agent.objects.all()
    return [as_json(agent) for agent in (agents.filter(tier_id=tier) if tier else agents)]


def _found(slug: str) -> Agent:
    agent = Agent.objects.filter(slug=slug).first()
    if agent is None:
        raise HttpError(Problem(404, f"no agent '{slug[:60]}'", "invalid_request_error", "agent_not_found"))
    return agent


def _created(given: AgentIn, actor: str) -> dict[str, Any]:
    if Agent.objects.filter(slug=given.slug).exists():
        message = f"there is an agent '{given.slug}' already"
        raise HttpError(Problem(409, message, "invalid_request_error", "agent_exists", "slug"))
    agent = Agent(slug=given.slug)
    _write(agent, given, set(_FIELDS) - {"slug"}, actor, "add")
    return as_json(agent)


def _updated(slug: str, given: AgentIn, fields: set[str], actor: str) -> dict[str, Any]:
    agent = _found(slug)
    _write(agent, given, fields, actor, "change")
    return as_json(agent)


def _write(agent: Agent, given: AgentIn, fields: set[str], actor: str, action: str) -> None:
    for name in fields:
        value = getattr(given, name)
        if name == "tier":
            agent.tier_id = value
        elif name == "priority":
            agent.priority = Priority[value.upper()]
        else:
            setattr(agent, name, value)
    agent.name = agent.name or agent.slug
    try:
        agent.full_clean()
    except ValidationError as error:
        field, problems = next(iter(error.message_dict.items()))
        raise InvalidRequest(f"{field}: {problems[0]}", param=field) from None
    with transaction.atomic():
        agent.save()
        audit.record(f"agent {actor}", action, f"agent {agent.slug}", fields=sorted(fields))


def _deleted(slug: str, actor: str) -> None:
    agent = _found(slug)
    try:
        with transaction.atomic():
            agent.delete()
            audit.record(f"agent {actor}", "delete", f"agent {slug}")
    except ProtectedError:
        message = f"agent '{slug}' is still in use"
        raise HttpError(Problem(409, message, "invalid_request_error", "agent_in_use")) from None


collection = endpoint(get=index, post=create)
single = endpoint(get=show, put=update, patch=update, delete=delete)
