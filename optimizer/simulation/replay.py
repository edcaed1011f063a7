"""Replay: recorded traffic under two settings, through the scheduler that runs in production.

Rule: pure and deterministic. Only thresholds in `REPLAYABLE` can make a difference here; prompts, selection and
combined prompts are as they were recorded. Must not know: where recordings come from, who decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import Figures
from optimizer.simulation.experiment import STEADY, Comparison, Result, cache_of, machine_for, run
from optimizer.simulation.history import Ending, History
from optimizer.simulation.metrics import average
from optimizer.simulation.recording import pieces, workloads
from optimizer.simulation.workload import Arrival

PIECES = 8  # research/scheduling.md, "Tuning by replay"
LEAST_IN_PIECE = 20  # requests; fewer say nothing
UNANSWERED = 10.0  # a request without an answer counts as one that took this many times its target

REPLAYABLE = frozenset({
    "gpu_memory_mb", "gpu_headroom", "slots", "stay", "urgent", "order", "longest_waiting_every", "max_waiting",
    "max_waiting_per_agent", "batch_window_ms", "coalesce", "cache_enabled", "cache_ttl_s", "cache_max_entries",
    "max_tokens_scale",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """One piece under one setting."""

    result: Result
    figures: Figures


def parts_of(arrivals: Sequence[Arrival], most: int = PIECES, least: int = LEAST_IN_PIECE) -> list[list[Arrival]]:
    """The recording in as many equal spans as have `least` requests on average, at most `most`; at least one.

    Raises ConfigurationError when there is nothing to replay.
    """
    if not arrivals:
        raise ConfigurationError("nothing was recorded in that time")
    return pieces(arrivals, max(1, min(most, len(arrivals) // least)))


def replay(
    parts: Sequence[Sequence[Arrival]],
    thresholds: Thresholds,
    catalogue: Catalogue,
    done: Callable[[], None] = lambda: None,
) -> list[Replayed]:
    """Every piece under one setting, each from an empty machine but with the cache that the one before left.

    `done` is called after each.
    Raises ConfigurationError when a recorded model is unknown or cannot fit.
    """
    used = {arrival.model for part in parts for arrival in part}
    unknown = sorted(used - set(catalogue.models))
    if unknown:
        raise ConfigurationError(f"the recording uses {', '.join(unknown)}, which is not served here")
    machine = machine_for(thresholds, catalogue)
    large = sorted(model for model in used if machine.footprint_mb(model) > machine.usable_mb)
    if large:
        raise ConfigurationError(f"{', '.join(large)} cannot fit into {machine.usable_mb:.0f} MB of usable VRAM")
    replayed = []
    limited = [_limited(part, thresholds, catalogue) for part in parts]
    answers = cache_of(thresholds)
    for number, workload in enumerate(workloads([part for part, _ in limited])):
        result = run(STEADY, workload, machine, number + 1, thresholds, catalogue, answers)
        replayed.append(Replayed(result, figures(result.history, limited[number][1])))
        answers.later(workload.horizon_s)
        done()
    return replayed


def _limited(part: Sequence[Arrival], thresholds: Thresholds, catalogue: Catalogue) -> tuple[list[Arrival], int]:
    """The piece with answers no longer than the setting lets them be, and how many that cuts short."""
    limits = {name: round(spec.max_tokens * thresholds.max_tokens_scale) for name, spec in catalogue.models.items()}
    kept = [replace(a, output_tokens=min(a.output_tokens, limits[a.model])) for a in part]
    return kept, sum(a.output_tokens > limits[a.model] for a in part)


def figures(history: History, cut_short: int) -> Figures:
    """What a run means to the agents. `lateness` is the mean over all requests of latency / target."""
    outcomes = history.outcomes
    answered = [o for o in outcomes if o.ending is Ending.ANSWERED]
    latencies = sorted(o.latency_s for o in answered)
    late = [
        o.latency_s / o.target_s if o.ending is Ending.ANSWERED else max(UNANSWERED, o.latency_s / o.target_s)
        for o in outcomes
    ]
    count = max(1, len(outcomes))
    return Figures(
        requests=len(outcomes),
        lateness=sum(late) / count,
        mean_s=sum(latencies) / max(1, len(latencies)),
        p95_s=latencies[int(0.95 * (len(latencies) - 1))] if latencies else 0.0,
        within_target=sum(o.latency_s <= o.target_s for o in answered) / count,
        swaps=history.evictions,
        cache_hits=history.cache_hits / count,
        cut_short=cut_short / count,
    )


def comparison(before: Sequence[Replayed], after: Sequence[Replayed]) -> Comparison:
    """Both settings as the simulation's tables and pictures show them."""
    results = {
        name: [replace(replayed.result, policy=name) for replayed in side]
        for name, side in (("current", before), ("changed", after))
    }
    means = {name: average([result.summary for result in side]) for name, side in results.items()}
    return Comparison("recorded traffic", results, means, 0.0)
