"""The watch: gathers a quarter of an hour's evidence from the database, lets the rules judge it, keeps suggestions.

Rule: a rule that fires makes one suggestion; as long as it has not cleared it makes no second one, whatever people
did with the first. When it clears, an open one is dismissed in Narrowgauge's name. Synchronous; called in a thread.
Must not know: what makes a rule fire.
"""

import time
from collections import defaultdict
from typing import Any

from django.db import IntegrityError, transaction

from controlplane import audit, queries, series, storable, suggestions, thresholds
from controlplane.models import LanguageModel, RequestRecord, Suggestion
from optimizer.core import rules
from optimizer.core.request import AUTO
from optimizer.core.rules import WINDOW_S, Evidence, Judged, ModelFacts, Reading, Seen

MOST_REQUESTS = 3_000  # newest first; bounds a look on a busy system
MOST_TEXTS = 300
CLEARED = "cleared_at"  # in a suggestion's evidence: when its rule cleared, seconds since the epoch
SOURCE = "rules"  # in a suggestion's evidence: who made it
_MINUTE_S = 60.0


def look(now: float | None = None) -> Judged:
    """Judge the last quarter of an hour and bring the suggestions up to date. `now` in seconds since the epoch."""
    now = time.time() if now is None else now
    judged = rules.judge(evidence(now), thresholds.current(), firing())
    for reading in judged.fired:
        _suggest(reading)
    for rule in judged.cleared:
        _clear(rule, now)
    return judged


def firing() -> frozenset[str]:
    """Rules that fired and have not cleared since."""
    return frozenset(suggestion.rule for suggestion in _uncleared())


def _uncleared() -> list[Suggestion]:
    return list(Suggestion.objects.filter(evidence__source=SOURCE).exclude(evidence__has_key=CLEARED))


def _suggest(reading: Reading) -> None:
    try:
        with transaction.atomic():
            Suggestion.objects.create(
                rule=reading.rule,
                severity=reading.severity,
                title=reading.title[:200],
                body=reading.body,
                evidence={**reading.evidence, "source": SOURCE, "samples": reading.samples},
            )
    except IntegrityError:
        return  # another process saw it at the same moment


def _clear(rule: str, now: float) -> None:
    for suggestion in _uncleared():
        if suggestion.rule == rule:
            Suggestion.objects.filter(pk=suggestion.pk).update(evidence={**suggestion.evidence, CLEARED: round(now)})
            suggestions.dismiss(suggestion, audit.SYSTEM)


# --- evidence -----------------------------------------------------------------------------------------


def evidence(now: float) -> Evidence:
    """What the database knows of the last quarter of an hour."""
    since = now - WINDOW_S
    return Evidence(
        requests=_requests(since, now),
        models=_models(),
        agent_tiers={slug: profile.tier for slug, profile in queries.agent_profiles().items()},
        waiting=_waiting(since, now),
        switches=round(series.total("model_switches_total", since, now).total),
        backend_losses=round(series.total("backend_losses_total", since, now).total),
    )


_FIELDS = ("pk", "agent", "model", "tier", "status", "cache", "queue_s", "total_s", "prefill_s", "decode_s", "wanted")


def _requests(since: float, now: float) -> list[Seen]:
    rows = RequestRecord.objects.filter(arrived_at__gte=storable.moment(since), arrived_at__lt=storable.moment(now))
    misses = rows.filter(cache="miss", status="replied").order_by("-arrived_at")
    texts = dict(misses.values_list("pk", "prompt_original")[:MOST_TEXTS])
    return [_seen(values, texts) for values in rows.order_by("-arrived_at").values(*_FIELDS)[:MOST_REQUESTS]]


def _seen(values: dict[str, Any], texts: dict[str, str]) -> Seen:
    return Seen(
        agent=values["agent"],
        model=values["model"],
        tier=values["tier"],
        status=values["status"],
        cache=values["cache"],
        queue_s=values["queue_s"],
        total_s=values["total_s"],
        work_s=values["prefill_s"] + values["decode_s"],
        asked_auto=values["wanted"] == AUTO,
        text=texts.get(values["pk"], ""),
    )


def _models() -> list[ModelFacts]:
    node = queries.active_node()
    backend = queries.stored_backend(node.kind) if node else LanguageModel.Backend.OLLAMA
    rows = LanguageModel.objects.filter(backend=backend, enabled=True).select_related("tier")
    return [
        ModelFacts(
            name=row.name,
            target_s=row.tier.target_s,
            declared_mb=float(row.footprint_mb),
            declared_decode_tps=row.decode_tps,
            footprint_mb=row.measured_footprint_mb,
            vram_mb=row.measured_vram_mb,
            decode_tps=row.measured_decode_tps,
        )
        for row in rows
    ]


def _waiting(since: float, now: float) -> list[float]:
    """Mean number of waiting requests over all models, a value a minute."""
    minutes: defaultdict[float, float] = defaultdict(float)
    for point in series.read("requests_waiting", since - since % _MINUTE_S, now):
        minutes[point.start] += point.values.mean
    return [minutes[start] for start in sorted(minutes)]
