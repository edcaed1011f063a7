"""What the stored history says, for people: requests by filter, figures of agents, of models and of the cache.

Rule: synchronous ORM, reading only. Times are aware datetimes, durations seconds.
Must not know: pages.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Avg, Count, F, Max, Q, QuerySet, Sum
from django.utils import timezone

from controlplane.models import Agent, AgentKey, AuditEntry, CachedAnswer, RequestRecord, Suggestion, ThresholdRevision
from optimizer.core.stats import summary

HITS = ("exact", "semantic", "coalesced")
RAN = ("miss", "off")  # cache outcomes of requests that had a run of their own
LATEST = 1000  # requests that quantiles are taken over


@dataclass(frozen=True, slots=True)
class Filter:
    """What somebody searches for; empty fields do not narrow. `text` looks into prompts and answers."""

    agent: str = ""
    model: str = ""
    tier: str = ""
    cache: str = ""
    status: str = ""
    slower_s: float = 0.0
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""


def requests(wanted: Filter) -> QuerySet[RequestRecord]:
    """Ended requests, newest first, without their texts."""
    named = {name: getattr(wanted, name) for name in ("model", "tier", "cache", "status") if getattr(wanted, name)}
    rows = RequestRecord.objects.filter(**named).defer("prompt_original", "prompt_sent", "answer", "decisions")
    if wanted.agent:
        rows = rows.filter(agent__icontains=wanted.agent)
    if wanted.slower_s:
        rows = rows.filter(total_s__gte=wanted.slower_s)
    if wanted.since:
        rows = rows.filter(arrived_at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(arrived_at__lt=wanted.until)
    if wanted.text:
        rows = rows.filter(Q(prompt_original__icontains=wanted.text) | Q(answer__icontains=wanted.text))
    return rows


def choices() -> dict[str, list[str]]:
    """What the filters can be set to: what the history holds."""
    return {
        name: list(RequestRecord.objects.order_by(name).values_list(name, flat=True).distinct().exclude(**{name: ""}))
        for name in ("model", "tier", "cache")
    }


def figures_of_agents(since: datetime) -> dict[str, dict[str, Any]]:
    """Slug -> requests, bad, goods of judged, measured complexity of scored, times, hits, gpu_s and its share."""
    rows = (
        RequestRecord.objects.filter(arrived_at__gte=since)
        .order_by()
        .values("agent")
        .annotate(
            requests=Count("pk"),
            bad=Count("pk", filter=Q(status__in=("failed", "rejected"))),
            goods=Count("pk", filter=Q(good=True)),
            judged=Count("pk", filter=Q(good__isnull=False)),
            measured=Avg("complexity"),
            scored=Count("complexity"),
            mean_s=Avg("total_s", filter=Q(status="replied")),
            worst_s=Max("total_s", filter=Q(status="replied")),
            waited_s=Avg("queue_s", filter=Q(cache__in=RAN, status="replied")),
            hits=Count("pk", filter=Q(cache__in=HITS)),
            replied=Count("pk", filter=Q(status="replied")),
            gpu_s=Sum(F("prefill_s") + F("decode_s"), filter=Q(cache__in=RAN), default=0.0),
        )
    )
    table = {row["agent"]: row for row in rows}
    total_s = sum(row["gpu_s"] for row in table.values())
    for row in table.values():
        row["hit_rate"] = row["hits"] / row["replied"] if row["replied"] else None
        row["gpu_share"] = row["gpu_s"] / total_s if total_s else 0.0
    return table


def fairness(agent: Agent, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What `figures_of_agents` says of an agent's treatment: the share of GPU time that its weight is worth among
    the agents that had any, how many those are, and how long it and everybody waited for a start, seconds.
    """
    active = [slug for slug, row in figures.items() if row["gpu_s"] > 0]
    weights = dict(Agent.objects.filter(slug__in=active).values_list("slug", "weight"))
    waits = [row["waited_s"] for row in figures.values() if row["waited_s"] is not None]
    total = sum(weights.values())
    return {
        "active": len(weights),
        "worth": agent.weight / total if agent.slug in weights and total else None,
        "waited_s": figures.get(agent.slug, {}).get("waited_s"),
        "others_waited_s": sum(waits) / len(waits) if waits else None,
    }


def figures_of_models(since: datetime) -> list[dict[str, Any]]:
    """Per model: answers with a run of their own, p50 and p95 of response time, tokens per second, failures."""
    table = []
    names = RequestRecord.objects.filter(arrived_at__gte=since).exclude(model="").order_by("model")
    for model in names.values_list("model", flat=True).distinct():
        rows = RequestRecord.objects.filter(arrived_at__gte=since, model=model)
        ran = list(
            rows.filter(status="replied", cache__in=RAN).values_list("total_s", "output_tokens", "decode_s")[:LATEST]
        )
        decode_s = sum(row[2] for row in ran)
        table.append(
            {
                "model": model,
                "runs": len(ran),
                "times": summary([row[0] for row in ran]),
                "tokens_per_s": sum(row[1] for row in ran if row[2]) / decode_s if decode_s else None,
                "failed": rows.filter(status="failed").count(),
            }
        )
    return table


def times_of_agent(slug: str, since: datetime) -> Any:
    """`Summary` of an agent's latest response times."""
    rows = RequestRecord.objects.filter(agent=slug, status="replied", arrived_at__gte=since)
    return summary(list(rows.values_list("total_s", flat=True)[:LATEST]))


def cache_figures(since: datetime) -> dict[str, Any]:
    """Replies by cache outcome, the share of hits, and the tokens that hits did not cost."""
    rows = RequestRecord.objects.filter(arrived_at__gte=since, status="replied").order_by().values("cache")
    summed = rows.annotate(n=Count("pk"), tokens=Sum("output_tokens"), read=Sum("prompt_tokens"))
    counts = {row["cache"]: row for row in summed}
    asked = sum(row["n"] for kind, row in counts.items() if kind != "off")
    hits = sum(row["n"] for kind, row in counts.items() if kind in HITS)
    return {
        "counts": {kind: counts[kind]["n"] if kind in counts else 0 for kind in ("miss", *HITS, "off")},
        "asked": asked,
        "hits": hits,
        "rate": hits / asked if asked else None,
        "tokens_saved": sum(row["tokens"] or 0 for kind, row in counts.items() if kind in HITS),
        "prompt_tokens_saved": sum(row["read"] or 0 for kind, row in counts.items() if kind in HITS),
    }


def cached_answers(agent: str, text: str) -> QuerySet[CachedAnswer]:
    """Answers that may be given again, newest first; of one agent, with a text in the question."""
    rows = CachedAnswer.objects.filter(invalidated_at__isnull=True).defer("embedding", "thinking")
    if agent:
        rows = rows.filter(agent__icontains=agent)
    return rows.filter(question__icontains=text) if text else rows


def semantic_hits(most: int) -> list[RequestRecord]:
    """The latest answers given to a question that was only similar."""
    return list(RequestRecord.objects.filter(cache="semantic").defer("prompt_sent", "answer")[:most])


def live_key_counts() -> dict[int, int]:
    """Agent id -> keys that work now."""
    live = AgentKey.objects.filter(revoked_at__isnull=True).exclude(expires_at__lte=timezone.now()).order_by()
    return dict(live.values_list("agent").annotate(n=Count("pk")))


def compression_figures(most: int = LATEST) -> tuple[int, int, int]:
    """(requests compressed, prompt tokens before, after) of the latest requests that had a run, by one counter."""
    rows = RequestRecord.objects.filter(cache__in=RAN, status="replied").values_list("decisions", flat=True)[:most]
    values = [d.get("values", {}) for decisions in rows for d in decisions if d.get("stage") == "compression"]
    counted = [v for v in values if v.get("tokens_before")]
    return len(counted), sum(v["tokens_before"] for v in counted), sum(v["tokens_after"] for v in counted)


def last_parameter_change() -> ThresholdRevision | None:
    return ThresholdRevision.objects.order_by("-pk").first()


def last_review() -> AuditEntry | None:
    """When somebody last said that they looked at the models' performance."""
    return AuditEntry.objects.filter(action=REVIEW).first()


REVIEW = "review"


def strategy_changes(since: datetime) -> list[AuditEntry]:
    """Changes of assignments and models, and suggestions applied: what was learned and put to use."""
    assigned = Q(action__in=("change", "add", "delete")) & (
        Q(target__startswith="agent ") | Q(target__startswith="tier ") | Q(target__startswith="language model ")
    )
    applied = Q(action=Suggestion.State.APPLIED, target__startswith="suggestion ")
    return list(AuditEntry.objects.filter(assigned | applied, at__gte=since)[:5])


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def agents_without(**flag: bool) -> int:
    """How many agents have a switch set to this value."""
    return Agent.objects.filter(**flag).count()
