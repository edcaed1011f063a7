"""What a change of thresholds did: real figures since it, beside as long a time before it.

Rule: measured figures only, counted as a replay counts them, so that both may stand in one table. They are an
observation: traffic differs between the two times, which the tuner's own verdict (tuning_cycle.py) allows for.
Must not know: why the change was made.
"""

from dataclasses import dataclass

from controlplane import recording, series
from controlplane.tuning_cycle import lateness
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import Figures
from optimizer.simulation.metrics import quantile

LONGEST_S = recording.HOURS * 3600.0  # what is compared, at most: as much as the tuner looks at
SWITCHES = "model_switches_total"
HITS = ("exact", "semantic", "coalesced")


@dataclass(frozen=True, slots=True)
class Effect:
    """Figures of `span_s` seconds before and after a change."""

    span_s: float
    before: Figures
    after: Figures


def of_change(changed_at: float, now: float, catalogue: Catalogue) -> Effect:
    """What happened since `changed_at` (seconds since the epoch), at most 8 hours of it."""
    span_s = max(0.0, min(now - changed_at, LONGEST_S))
    before = measured(changed_at - span_s, changed_at, catalogue)
    return Effect(span_s, before, measured(changed_at, changed_at + span_s, catalogue))


def measured(since: float, until: float, catalogue: Catalogue) -> Figures:
    """Figures of the requests that arrived within [since, until) on models served here; refused ones are left out."""
    seen = [r for r in recording.records(since, until) if r.model in catalogue.models and r.status != "rejected"]
    times = sorted(record.total_s for record in seen if record.status == "replied")
    count = max(1, len(seen))
    on_time = sum(r.status == "replied" and r.total_s <= catalogue.tier_of(r.model).target_s for r in seen)
    return Figures(
        requests=len(seen),
        lateness=lateness(seen, catalogue),
        mean_s=sum(times) / max(1, len(times)),
        p95_s=quantile(times, 0.95),
        within_target=on_time / count,
        swaps=series.total(SWITCHES, since, until).total,
        cache_hits=sum(record.cache in HITS for record in seen) / count,
    )
