"""Agents' workloads against their assigned tiers ("profile agent workloads to verify model assignments", strategy.md).

Rule: judged by what selection itself believes (`Outcomes.estimates`, `worthwhile`), without the pull of the assigned
tier, for that is what is in question. A reassignment is only suggested on enough requests and for a clear gain.
Must not know: where requests and outcomes are stored, how they are shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from optimizer.core.selection import WORTH, Outcomes, by_cuts, strong_need, worthwhile
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import TIER_SLUGS, rank

MIN_REQUESTS = 20  # scored requests before an assignment is judged
CLEAR = 0.03  # share of good answers, the price of the steps included, that a reassignment must gain


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of one agent: complexities (0..1) of its scored requests, requests and outcomes by tier."""

    slug: str
    name: str
    assigned: str
    complexities: tuple[float, ...] = ()
    answered_by: Mapping[str, int] = field(default_factory=dict)  # tier -> requests answered
    outcomes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # tier -> (good, judged)
    min_tier: str = TIER_SLUGS[0]
    max_tier: str = TIER_SLUGS[-1]


@dataclass(frozen=True, slots=True)
class Profile:
    """One agent's assignment, judged. `complexity` is None without scored requests; `suggested` is "" to keep."""

    slug: str
    name: str
    assigned: str
    requests: int  # scored ones
    complexity: float | None  # median
    spread: Mapping[str, float]  # tier named by the cuts -> share of the scored requests
    answered_by: Mapping[str, int]
    outcomes: Mapping[str, tuple[int, int]]
    expected_good: Mapping[str, float]  # tier -> estimated share of good answers
    suggested: str
    sentence: str


def profiles(workloads: Iterable[Workload], thresholds: Thresholds) -> list[Profile]:
    """Every agent judged, suggested reassignments first, then by name. All outcomes inform every estimate."""
    everyone = list(workloads)
    outcomes = Outcomes()
    for workload in everyone:
        for tier, (good, judged) in workload.outcomes.items():
            if tier in TIER_SLUGS and judged:
                outcomes.restore(workload.slug, tier, good, judged)
    judged_agents = [_profile(workload, outcomes, thresholds) for workload in everyone]
    return sorted(judged_agents, key=lambda profile: (not profile.suggested, profile.name.lower()))


def _profile(workload: Workload, outcomes: Outcomes, thresholds: Thresholds) -> Profile:
    scored = workload.complexities
    estimates = [outcomes.estimates(workload.slug, complexity, thresholds) for complexity in scored]
    expected = {tier: fmean(e[tier] for e in estimates) for tier in TIER_SLUGS} if scored else {}
    named = [by_cuts(complexity, thresholds) for complexity in scored]
    allowed = [tier for tier in TIER_SLUGS if rank(workload.min_tier) <= rank(tier) <= rank(workload.max_tier)]
    suggested, sentence = _judged(workload, expected, allowed)
    return Profile(
        slug=workload.slug,
        name=workload.name,
        assigned=workload.assigned,
        requests=len(scored),
        complexity=median(scored) if scored else None,
        spread={tier: named.count(tier) / len(named) for tier in TIER_SLUGS} if named else {},
        answered_by=workload.answered_by,
        outcomes=workload.outcomes,
        expected_good=expected,
        suggested=suggested,
        sentence=sentence,
    )


def _judged(workload: Workload, expected: Mapping[str, float], allowed: list[str]) -> tuple[str, str]:
    """The tier to assign instead ("" = keep) and why."""
    assigned, count = workload.assigned, len(workload.complexities)
    if count < MIN_REQUESTS:
        return "", f"Too early to say: {count} of {MIN_REQUESTS} requests with a complexity."
    seen = f"median complexity {median(workload.complexities):.2f} over {count} requests"
    judged = sum(total for _, total in workload.outcomes.values())
    seen += f", {_outcomes(workload)}" if judged else ", no outcomes yet"
    best = worthwhile(expected, allowed or TIER_SLUGS)
    gain = strong_need(expected, assigned, best) - WORTH * (rank(best) - rank(assigned))
    if best == assigned or gain < CLEAR:
        return "", f"Keep {assigned}: {seen}."
    words = f"{expected[best]:.0%} good answers expected instead of {expected[assigned]:.0%}"
    if rank(best) < rank(assigned):
        return best, f"{best.capitalize()} would do: {words}, and it is cheaper; {seen}."
    return best, f"Needs {best}: {words}; {seen}."


def _outcomes(workload: Workload) -> str:
    parts = [
        f"{tier} {workload.outcomes[tier][0]} of {workload.outcomes[tier][1]} good"
        for tier in TIER_SLUGS
        if tier in workload.outcomes and workload.outcomes[tier][1]
    ]
    return ", ".join(parts)
