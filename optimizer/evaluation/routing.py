"""How well selection spends the strong model, recomputed on any file that knows which model was right.

Rule: ranks by what production decides by (`Selector.complexity`, `Outcomes.estimates`, `strong_need`); nothing is
tuned here. Rows: {"prompt", "task", "domain"?, "scores": {model: 0..1}}; an agent is one task (and domain).
Must not know: files, command lines.

Performance gap recovered (PGR) at a share x of strong calls: (quality with the x most needy asks sent to the strong
model - weak quality) / (strong quality - weak quality). APGR is its mean over x from 0 to 1; random choice gives 0.5
(RouteLLM, arXiv 2406.18665, section 3.2). Asks of equal need are taken in expectation.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from time import perf_counter
from typing import Any

from optimizer.core.complexity import Factors, factors
from optimizer.core.errors import ConfigurationError
from optimizer.core.request import AgentProfile, Kind, Message, Request, Task
from optimizer.core.selection import Selector, strong_need
from optimizer.core.stats import quantile
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import DEFAULT, OPUS, STRATEGY_CATALOGUE, TIER_SLUGS

# The steps of our tiers among the nine models of route_tiers: mistral-7b stands for the default tier (the weakest
# general chat model), qwen2.5-7b for sonnet (the family of qwen2.5-coder), llama-3.1-8b (deepseek-r1:8b is distilled
# into it), nemotron-super-49b (trained to reason) and nemotron-51b (the strongest) for opus. Of these steps, those
# with a gap of at least MIN_GAP.
PAIRS = (
    ("weak", "strong"),  # the names of route_routellm
    ("mistral-7b-instruct-v0.3", "qwen2.5-7b-instruct"),
    ("mistral-7b-instruct-v0.3", "llama-3.1-8b-instruct"),
    ("mistral-7b-instruct-v0.3", "llama-3.3-nemotron-super-49b-v1"),
    ("mistral-7b-instruct-v0.3", "llama-3.1-nemotron-51b-instruct"),
    ("qwen2.5-7b-instruct", "llama-3.1-nemotron-51b-instruct"),
)
MIN_GAP = 0.08  # mean score that "clearly weaker" means; below it the ratio of two small numbers is noise
OUTCOMES = 10  # observed per agent and tier
REPEATS = 5  # shuffles that every figure is the mean of
BINS = 10  # of the calibration error
GOOD = 0.5  # a score from here on is a good answer
_TASK = Task(expertise_level=0.5)  # what the pipeline makes of an agent without a level of its own

Row = Mapping[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Ask:
    agent: str
    scored: Factors
    weak: float
    strong: float


@dataclass(frozen=True, slots=True)
class _Figures:
    apgr: float
    gap_recovered_20: float
    calibration_error: float

    def rounded(self) -> dict[str, float]:
        return {
            "apgr": round(self.apgr, 4),
            "gap_recovered_20": round(self.gap_recovered_20, 4),
            "calibration_error": round(self.calibration_error, 4),
        }


def evaluate(
    sets: Mapping[str, Sequence[Row]],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    outcomes: int = OUTCOMES,
    repeats: int = REPEATS,
    thresholds: Thresholds | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Means over all weak/strong pairs of all sets (name -> rows).

    apgr, gap_recovered_20, calibration_error: with `outcomes` judged answers of either tier per agent, on asks that
    were not judged. cold: the same three without any outcome. half: with half as many of either tier, on different
    asks (so `outcomes` per agent in all). by_set: "set: weak -> strong" -> its three, cold and half, mean scores and
    asks. Calibration error: mean distance of estimated and real share of good answers over ten bins of the estimate.

    `pairs` are (weak, strong) model names; without any, those of PAIRS that a set has, else every clearly weaker
    model against the strongest. Raises ConfigurationError for rows that cannot be measured.
    """
    thresholds = thresholds or Thresholds()
    work = [
        (f"{name}: {weak} -> {strong}", asks)
        for name, rows in sets.items()
        for weak, strong, asks in _pairs_of(name, rows, pairs)
    ]
    modes = {"observed": (outcomes, True), "cold": (0, True), "half": (max(1, outcomes // 2), False)}
    by_set: dict[str, Any] = {}
    means: dict[str, list[_Figures]] = {mode: [] for mode in modes}
    for done, (name, asks) in enumerate(work):
        found: dict[str, _Figures] = {}
        for mode, (each, same_asks) in modes.items():
            found[mode] = _figures(
                [_one(asks, each, same_asks, thresholds, random.Random(seed)) for seed in range(repeats)]
            )
            means[mode].append(found[mode])
        by_set[name] = {
            **found["observed"].rounded(),
            "cold": found["cold"].rounded(),
            "half": found["half"].rounded(),
            "weak_score": round(fmean(ask.weak for ask in asks), 4),
            "strong_score": round(fmean(ask.strong for ask in asks), 4),
            "asks": len(asks),
            "agents": len({ask.agent for ask in asks}),
        }
        if progress:
            progress(done + 1, len(work))
    return {
        **_mean(means["observed"]).rounded(),
        "outcomes_per_agent_and_tier": outcomes,
        "cold": _mean(means["cold"]).rounded(),
        "half": _mean(means["half"]).rounded(),
        "by_set": by_set,
    }


def recovered(needs: Sequence[float], weak: Sequence[float], strong: Sequence[float]) -> list[float]:
    """PGR after the first 0, 1, 2, ... strong calls, the neediest first.

    Raises ConfigurationError when the strong model is not better on these asks: then there is no gap to recover.
    """
    gap = sum(strong) - sum(weak)
    if gap <= 0:
        raise ConfigurationError(f"on {len(needs)} asks the strong model is not better than the weak one: too few asks")
    order = sorted(range(len(needs)), key=lambda i: -needs[i])
    curve = [0.0]
    for _, tied in groupby(order, key=lambda i: needs[i]):
        alike = list(tied)
        step = fmean(strong[i] - weak[i] for i in alike) / gap
        curve += [curve[-1] + step * (k + 1) for k in range(len(alike))]
    return curve


def area(curve: Sequence[float]) -> float:
    """APGR: the mean height of a PGR curve (trapezoids)."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def calibration_error(estimates: Sequence[float], good: Sequence[float]) -> float:
    """Expected calibration error over BINS equally wide bins, weighted by their size (Naeini et al. 2015)."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for estimate, score in zip(estimates, good, strict=True):
        bins.setdefault(min(BINS - 1, int(estimate * BINS)), []).append((estimate, score))
    apart = (abs(sum(e - s for e, s in members)) for members in bins.values())
    return sum(apart) / len(estimates)


def tier_shares(
    prompts: Iterable[str], agents: Sequence[AgentProfile], thresholds: Thresholds | None = None
) -> dict[str, Any]:
    """Where a cold selector sends the prompts when the agents ask them in turn; every tier idle and installed.

    tiers: tier -> share; by_assigned: assigned tier -> tier -> share; decision_p50_ms, decision_p95_ms: one `select`.
    """
    thresholds = thresholds or Thresholds()
    selector = Selector()
    counts = {assigned: dict.fromkeys(TIER_SLUGS, 0) for assigned in TIER_SLUGS}
    times_ms: list[float] = []
    for number, prompt in enumerate(prompts):
        agent = agents[number % len(agents)]
        request = Request(
            id=str(number),
            agent=agent.slug,
            kind=Kind.CHAT,
            messages=(Message("user", prompt),),
            task=Task(expertise_level=agent.expertise_level),
        )
        started = perf_counter()
        chosen = selector.select(request, agent, STRATEGY_CATALOGUE, thresholds, wait_s=lambda _: 0.0)
        times_ms.append((perf_counter() - started) * 1000)
        counts[agent.tier][chosen.tier] += 1
    times_ms.sort()
    totals = {tier: sum(row[tier] for row in counts.values()) for tier in TIER_SLUGS}
    return {
        "tiers": _shares(totals),
        "by_assigned": {assigned: _shares(row) for assigned, row in counts.items() if any(row.values())},
        "decision_p50_ms": round(quantile(times_ms, 0.5), 3),
        "decision_p95_ms": round(quantile(times_ms, 0.95), 3),
    }


@dataclass(frozen=True, slots=True)
class _Run:
    curve: list[float]
    estimated: list[float]
    good: list[float]


def _figures(runs: Sequence[_Run]) -> _Figures:
    """Means over the runs; the calibration is that of all runs' estimates together, over many possible histories."""
    return _Figures(
        fmean(area(run.curve) for run in runs),
        fmean(_at(run.curve, 0.2) for run in runs),
        calibration_error([e for run in runs for e in run.estimated], [g for run in runs for g in run.good]),
    )


def _at(curve: Sequence[float], share: float) -> float:
    """Height of a PGR curve at a share of strong calls, between two calls in proportion."""
    place = share * (len(curve) - 1)
    low = min(int(place), len(curve) - 2)
    return curve[low] + (curve[low + 1] - curve[low]) * (place - low)


def _one(asks: Sequence[_Ask], each: int, same_asks: bool, thresholds: Thresholds, rng: random.Random) -> _Run:
    """One shuffle: `each` judged answers per agent and tier (at most half of an agent's asks are used up), then
    the rest is ranked."""
    mixed = rng.sample(asks, len(asks))
    selector = Selector()
    complexities = [selector.complexity(ask.scored, thresholds) for ask in mixed]
    agents = sorted({ask.agent for ask in mixed})
    quota = dict.fromkeys(agents, 0)
    for ask in mixed:
        quota[ask.agent] += 1
    seen = dict.fromkeys(agents, 0)
    rest: list[int] = []
    for i, ask in enumerate(mixed):
        turn, wanted = seen[ask.agent], each if same_asks else 2 * each
        if turn >= min(wanted, quota[ask.agent] // 2):
            rest.append(i)
            continue
        seen[ask.agent] += 1
        if same_asks or turn % 2 == 0:
            selector.outcomes.observe(ask.agent, DEFAULT, ask.weak >= GOOD)
        if same_asks or turn % 2 == 1:
            selector.outcomes.observe(ask.agent, OPUS, ask.strong >= GOOD)
    found = [selector.outcomes.estimates(mixed[i].agent, complexities[i], thresholds) for i in rest]
    weak, strong = [mixed[i].weak for i in rest], [mixed[i].strong for i in rest]
    curve = recovered([strong_need(estimates) for estimates in found], weak, strong)
    estimated = [estimates[DEFAULT] for estimates in found] + [estimates[OPUS] for estimates in found]
    good = [float(score >= GOOD) for score in weak + strong]
    return _Run(curve, estimated, good)


def _pairs_of(
    name: str, rows: Sequence[Row], wanted: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, list[_Ask]]]:
    if not rows:
        raise ConfigurationError(f"{name} has no rows")
    for number, row in enumerate(rows, 1):
        scores = row.get("scores")
        if not (isinstance(row.get("prompt"), str) and isinstance(scores, Mapping) and scores):
            raise ConfigurationError(f'{name}, row {number}: needs "prompt" and "scores" (model -> 0..1)')
        if not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores.values()):
            raise ConfigurationError(f"{name}, row {number}: scores must be numbers from 0 to 1")
    models = set.intersection(*(set(row["scores"]) for row in rows))
    pairs = [pair for pair in wanted or PAIRS if models.issuperset(pair)]
    if wanted and not pairs:
        raise ConfigurationError(f"{name} does not score both models of any pair; it has {', '.join(sorted(models))}")
    means = {model: fmean(row["scores"][model] for row in rows) for model in sorted(models)}
    if not pairs and means:
        strongest = max(means, key=lambda model: means[model])
        pairs = [(model, strongest) for model in means if means[strongest] - means[model] >= MIN_GAP]
    if not pairs:
        raise ConfigurationError(f"{name}: no model is clearly weaker ({MIN_GAP:g} of mean score) than another")
    scored = [factors(row["prompt"], _TASK) for row in rows]
    names = [f"{row.get('task', '')}/{row.get('domain', '')}" for row in rows]
    for weak, strong in pairs:
        if means[strong] <= means[weak]:
            raise ConfigurationError(f"{name}: {strong} is not stronger than {weak}")
        yield (
            weak,
            strong,
            [
                _Ask(agent, ask, float(row["scores"][weak]), float(row["scores"][strong]))
                for agent, ask, row in zip(names, scored, rows, strict=True)
            ],
        )


def _mean(figures: Sequence[_Figures]) -> _Figures:
    return _Figures(
        fmean(f.apgr for f in figures),
        fmean(f.gap_recovered_20 for f in figures),
        fmean(f.calibration_error for f in figures),
    )


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: round(count / total, 3) if total else 0.0 for name, count in counts.items()}
