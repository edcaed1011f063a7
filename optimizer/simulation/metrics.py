"""Figures of a run: what the agents got and what the GPU did.

Rule: every figure counts every request; one that was refused, given up or left open is no answer and not within
its target. Latencies are those of the answered ones, so read them beside `unanswered`. Must not know: policies.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

from optimizer.simulation.history import EMPTY, FULL, HELD, PARTIAL, SWAPPING, Ending, History, Outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in seconds, rates per minute of the whole run, shares of 1. NaN-free: 0.0 where nothing happened."""

    requests: float
    answered: float
    rejected: float
    failed: float
    gave_up: float
    left_open: float
    answers_per_min: float
    goodput_per_min: float  # answers within their target, per minute
    agents: float
    agents_without_answer: float
    mean_s: float
    p50_s: float
    p95_s: float
    mean_per_target: float  # latency / target, mean over answers
    within_target: float  # share of all requests answered within their target
    worst_wait_s: float  # arrival to start; counts requests that never started
    makespan_s: float
    loads: float
    evictions: float
    full_share: float
    partial_share: float
    swapping_share: float
    held_share: float
    empty_share: float
    fairness: float  # Jain's index over agents: answered share of what each asked, 1 = all equal

    @classmethod
    def of(cls, history: History) -> "Summary":
        """The figures of one run."""
        outcomes = history.outcomes
        answered = [outcome for outcome in outcomes if outcome.ending is Ending.ANSWERED]
        latencies = sorted(outcome.latency_s for outcome in answered)
        on_time = sum(outcome.latency_s <= outcome.target_s for outcome in answered)
        count = {ending: sum(outcome.ending is ending for outcome in outcomes) for ending in Ending}
        asked: defaultdict[str, int] = defaultdict(int)
        got: defaultdict[str, int] = defaultdict(int)
        for outcome in outcomes:
            asked[outcome.agent] += 1
            got[outcome.agent] += outcome.ending is Ending.ANSWERED
        minutes = history.ended_at / 60.0
        share = {use: _ratio(spent, history.ended_at) for use, spent in history.gpu_s.items()}
        return cls(
            requests=len(outcomes),
            answered=len(answered),
            rejected=count[Ending.REJECTED],
            failed=count[Ending.FAILED],
            gave_up=count[Ending.GAVE_UP],
            left_open=count[Ending.OPEN],
            answers_per_min=_ratio(len(answered), minutes),
            goodput_per_min=_ratio(on_time, minutes),
            agents=len(asked),
            agents_without_answer=sum(not got[agent] for agent in asked),
            mean_s=_mean(latencies),
            p50_s=quantile(latencies, 0.50),
            p95_s=quantile(latencies, 0.95),
            mean_per_target=_mean([outcome.latency_s / outcome.target_s for outcome in answered]),
            within_target=_ratio(on_time, len(outcomes)),
            worst_wait_s=max((outcome.wait_s for outcome in outcomes), default=0.0),
            makespan_s=history.ended_at,
            loads=history.loads,
            evictions=history.evictions,
            full_share=share[FULL],
            partial_share=share[PARTIAL],
            swapping_share=share[SWAPPING],
            held_share=share[HELD],
            empty_share=share[EMPTY],
            fairness=jain([got[agent] / asked[agent] for agent in asked]),
        )


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What those who asked for one model got, over all seeds. Seconds, and shares of 1."""

    requests: int
    answered: int
    mean_s: float
    p95_s: float
    within_target: float
    worst_wait_s: float


def by_model(histories: Sequence[History]) -> dict[str, ModelFigures]:
    """Model -> figures, in order of name."""
    asked: defaultdict[str, list[Outcome]] = defaultdict(list)
    for history in histories:
        for outcome in history.outcomes:
            asked[outcome.model].append(outcome)
    return {model: _model_figures(asked[model]) for model in sorted(asked)}


def _model_figures(outcomes: Sequence[Outcome]) -> ModelFigures:
    latencies = sorted(outcome.latency_s for outcome in outcomes if outcome.ending is Ending.ANSWERED)
    on_time = sum(o.ending is Ending.ANSWERED and o.latency_s <= o.target_s for o in outcomes)
    return ModelFigures(
        requests=len(outcomes),
        answered=len(latencies),
        mean_s=_mean(latencies),
        p95_s=quantile(latencies, 0.95),
        within_target=_ratio(on_time, len(outcomes)),
        worst_wait_s=max(outcome.wait_s for outcome in outcomes),
    )


def average(summaries: Sequence[Summary]) -> Summary:
    """The mean of each figure over runs (seeds)."""
    return Summary(**{f.name: _mean([getattr(s, f.name) for s in summaries]) for f in fields(Summary)})


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index, (sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of ascending values; 0.0 of none."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)] if ordered else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
