"""Questions to the stored state, asked in one place, and the one answer that callers give (feedback).

Rule: synchronous; async code calls these in a thread.
Must not know: HTTP, what the answers are used for.
"""

import difflib
from typing import Any

from django.db import transaction
from django.db.models import Count, Q, QuerySet

from controlplane.models import Agent, AgentKey, CachedAnswer, LanguageModel, Node, RequestRecord, StateVersion, Tier
from controlplane.record_rows import record_of, row_of
from optimizer.core import tiers as core
from optimizer.core.errors import ConfigurationError
from optimizer.core.request import AgentProfile
from optimizer.core.thresholds import Thresholds
from optimizer.ports import Record

SIMULATED = "simulated"


def state_version() -> int:
    """Moves with every change to what the engine keeps in memory; one small SELECT."""
    return StateVersion.current()


def agent_profiles() -> dict[str, AgentProfile]:
    """Every agent's profile, by slug."""
    return {agent.slug: agent.profile() for agent in Agent.objects.all()}


def live_keys() -> list[AgentKey]:
    """Keys that are not revoked, with their agents; expired ones included (the clock decides at use)."""
    return list(AgentKey.objects.filter(revoked_at__isnull=True).select_related("agent"))


def latest_moment() -> float | None:
    """When the latest stored request arrived, by the clock of then; None without one. Seconds since the epoch."""
    latest = RequestRecord.objects.order_by("-arrived_at").values_list("arrived_at", flat=True).first()
    return latest.timestamp() if latest is not None else None


def near_matches(slug: str) -> list[str]:
    """Slugs of agents that look like `slug`, best first, at most three."""
    slugs = Agent.objects.values_list("slug", flat=True)
    return difflib.get_close_matches(slug.lower(), slugs, n=3, cutoff=0.5)


def active_node() -> Node | None:
    """The node that an engine started last; None before the first start."""
    return Node.objects.filter(started_at__isnull=False).order_by("-started_at").first()


def own_thresholds() -> dict[str, dict[str, Any]]:
    """What holds on single nodes only, by the node's name."""
    return {node.name: node.own_thresholds for node in Node.objects.all()}


def stored_backend(backend: str) -> str:
    """Under which name a backend's models are stored: the simulated card has Ollama's, it stands for that machine."""
    return LanguageModel.Backend.OLLAMA if backend == SIMULATED else backend


def models_of(backend: str) -> list[LanguageModel]:
    """The enabled models of a backend."""
    return list(LanguageModel.objects.filter(backend=stored_backend(backend), enabled=True))


def invalidated_answers() -> frozenset[str]:
    """Keys of cached answers that people took out of use; the engine drops its copies."""
    return frozenset(CachedAnswer.objects.filter(invalidated_at__isnull=False).values_list("key", flat=True))


def live_cached_answers(**which: str) -> QuerySet[CachedAnswer]:
    """Cached answers in use that match every condition."""
    return CachedAnswer.objects.filter(invalidated_at__isnull=True, **which)


def cached_answers(agent: str, limit: int) -> list[dict[str, Any]]:
    """Entries in use, latest first, without their answers; of one agent, or "" of all."""
    rows = live_cached_answers(**({"agent": agent} if agent else {})).order_by("-stored_at")
    return [
        {
            "key": row.key,
            "agent": row.agent,
            "group": row.group,
            "model": row.model,
            "question": row.question,
            "hits": row.hits,
            "stored_at": row.stored_at.timestamp(),
        }
        for row in rows.only("key", "agent", "group", "model", "question", "hits", "stored_at")[:limit]
    ]


def catalogue(backend: str, thresholds: Thresholds) -> core.Catalogue:
    """Tiers and models of a backend; prompt budgets are the thresholds'.

    Raises ConfigurationError when a tier has no model there.
    """
    models = models_of(backend)
    serving = {model.tier_id: model.name for model in models if model.is_tier_default}
    rows = list(Tier.objects.all())
    missing = [tier.slug for tier in rows if tier.slug not in serving]
    if missing or not rows:
        which = ", ".join(missing) or "any tier"
        raise ConfigurationError(f"no model serves {which} on {backend}: mark one as 'serves its tier' in the admin")
    return core.catalogue(
        tuple(
            core.Tier(
                slug=tier.slug,
                model=serving[tier.slug],
                prompt_budget_tokens=thresholds.budget_tokens(tier.slug),
                compression=core.CompressionLevel(tier.compression),
                target_s=tier.target_s,
            )
            for tier in rows
        ),
        tuple(model.spec() for model in models),
    )


def record(request_id: str) -> Record | None:
    """The record of an ended request."""
    row = RequestRecord.objects.filter(pk=request_id[:64]).first()
    return record_of(row) if row else None


def records(agent: str = "", status: str = "", limit: int = 50) -> list[Record]:
    """Ended requests, newest first; of one agent, of one status."""
    which = {name: value for name, value in (("agent", agent), ("status", status)) if value}
    return [record_of(row) for row in RequestRecord.objects.filter(**which)[:limit]]


def give_feedback(ended: Record, good: bool) -> bool | None:
    """Keep what the caller says of an answer; returns what it said before, None for nothing."""
    with transaction.atomic():
        row = RequestRecord.objects.select_for_update().filter(pk=ended.id[:64]).first()
        if row is None:  # still waiting in the buffer, which leaves a row alone that is there already
            row = row_of(ended)
        before, row.good = row.good, good
        row.save()
    return before


def outcomes() -> list[tuple[str, str, int, int]]:
    """(agent, tier, good answers, answers judged) of all feedback that is kept."""
    judged = RequestRecord.objects.filter(good__isnull=False).order_by().values("agent", "tier")
    rows = judged.annotate(goods=Count("pk", filter=Q(good=True)), total=Count("pk"))
    return [(row["agent"], row["tier"], row["goods"], row["total"]) for row in rows]
