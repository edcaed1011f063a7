"""Every agent's workload, read from the request records, for `optimizer.profiling`.

Rule: synchronous; async code calls it in a thread. Simulated answers are left out: they say nothing of a model.
Must not know: how it is shown.
"""

from collections import defaultdict
from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from controlplane import thresholds
from controlplane.models import Agent, RequestRecord
from optimizer.profiling import Profile, Workload, profiles

LATEST = 1000  # scored requests of an agent that are read, the newest


def agent_profiles(days: float = 7.0, simulated: bool = False) -> list[Profile]:
    """Assigned tier against measured complexity and outcomes, for every agent, of the last `days`.

    `simulated` includes answers of the simulated backend.
    """
    since = timezone.now() - timedelta(days=days)
    records = RequestRecord.objects.filter(arrived_at__gte=since, status=RequestRecord.Status.REPLIED)
    if not simulated:
        records = records.filter(simulated=False)
    complexities: dict[str, list[float]] = defaultdict(list)
    rows = records.filter(complexity__isnull=False).order_by("-arrived_at").values_list("agent", "complexity")
    for agent, complexity in rows.iterator():
        if len(complexities[agent]) < LATEST:
            complexities[agent].append(complexity)
    answered: dict[str, dict[str, int]] = defaultdict(dict)
    outcomes: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    counted = records.order_by().values("agent", "tier")
    for row in counted.annotate(
        requests=Count("pk"), goods=Count("pk", filter=Q(good=True)), judged=Count("pk", filter=Q(good__isnull=False))
    ):
        answered[row["agent"]][row["tier"]] = row["requests"]
        if row["judged"]:
            outcomes[row["agent"]][row["tier"]] = (row["goods"], row["judged"])
    return profiles(
        (
            Workload(
                slug=agent.slug,
                name=agent.name,
                assigned=agent.tier_id,
                complexities=tuple(complexities.get(agent.slug, ())),
                answered_by=answered.get(agent.slug, {}),
                outcomes=outcomes.get(agent.slug, {}),
                min_tier=agent.min_tier,
                max_tier=agent.max_tier,
            )
            for agent in Agent.objects.all()
        ),
        thresholds.current(),
    )
