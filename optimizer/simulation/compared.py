"""Recorded traffic under two settings, as plain data: what a table, a picture and a decision need.

Rule: pure; every figure is of the replay, `current` beside `changed`, and says how sure it is over the pieces.
Must not know: where the traffic comes from, who looks, who decides.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.core.thresholds import Thresholds, as_dict, changed
from optimizer.core.tiers import Catalogue, rank
from optimizer.core.tuning import Figures, Verdict, judge
from optimizer.simulation.history import Ending, Outcome
from optimizer.simulation.metrics import quantile
from optimizer.simulation.replay import REPLAYABLE, Replayed, replay
from optimizer.simulation.workload import Arrival

CURVE_POINTS = 120  # of the picture of latencies


@dataclass(frozen=True, slots=True)
class Compared:
    """The same pieces under both settings, and the verdict that the tuner would give."""

    change: Mapping[str, Any]
    before: Sequence[Replayed]
    after: Sequence[Replayed]
    verdict: Verdict


def compare(
    parts: Sequence[Sequence[Arrival]],
    current: Thresholds,
    change: Mapping[str, Any],
    catalogue: Catalogue,
    done: Callable[[], None] = lambda: None,
) -> Compared:
    """Replay `parts` under `current` and under `current` with `change`; `done` is called after each piece of each.

    Raises ThresholdError for a bad value, ConfigurationError when the traffic cannot be replayed here.
    """
    wanted = changed(current, change)
    before = replay(parts, current, catalogue, done)
    after = replay(parts, wanted, catalogue, done)
    values = {name: getattr(wanted, name) for name in change}
    return Compared(values, before, after, judge([r.figures for r in before], [r.figures for r in after]))


def cannot_show(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Those of the thresholds whose effect a replay cannot show, in order of name."""
    return sorted(set(names) - REPLAYABLE)


def setting_of(current: Thresholds) -> dict[str, Any]:
    """The values that a replay depends on."""
    return {name: value for name, value in as_dict(current).items() if name in REPLAYABLE}


def sentence(verdict: Verdict) -> str:
    """The verdict for a person: how much, how sure, and whether it is enough."""
    side = "better" if verdict.ratio < 1 else "worse"
    gain = f"{abs(1 - verdict.ratio):.1%} {side}" if verdict.ratio != 1 else "no difference"
    sure = f"95 % of pieces' means x{verdict.low:.3f} to x{verdict.high:.3f}"
    if verdict.low == verdict.high != 1.0:
        sure = "too few pieces can be compared to say how sure that is"
    return (
        f"latency / target x{verdict.ratio:.3f} ({gain}; {sure}), "
        f"better in {verdict.better_in} of {verdict.pieces} pieces. "
        + ("The tuner would accept it." if verdict.accepted else f"The tuner would not accept it: {verdict.reason}.")
    )


def data(compared: Compared, catalogue: Catalogue) -> dict[str, Any]:
    """Means over all pieces, tiers, the pieces one by one and the curves of latency, as JSON."""
    sides = {"current": compared.before, "changed": compared.after}
    return {
        "change": dict(compared.change),
        "effect": dataclasses.asdict(compared.verdict),
        "totals": {name: dataclasses.asdict(whole(side)) for name, side in sides.items()},
        "tiers": _tiers(sides, catalogue),
        "pieces": [
            {"current": dataclasses.asdict(old.figures), "changed": dataclasses.asdict(new.figures)}
            for old, new in zip(compared.before, compared.after, strict=True)
        ],
        "curves": {name: _curve(_outcomes(side)) for name, side in sides.items()},
    }


def whole(side: Sequence[Replayed]) -> Figures:
    """All pieces as one: every request counts alike, and requests and swaps are sums; only `lateness` is the mean of
    the pieces, because the verdict judges by that.
    """
    outcomes = _outcomes(side)
    latencies = _latencies(outcomes)
    count = max(1, len(outcomes))

    def weighted(name: str) -> float:
        return float(sum(getattr(piece.figures, name) * piece.figures.requests for piece in side)) / count

    return Figures(
        requests=len(outcomes),
        lateness=sum(piece.figures.lateness for piece in side) / max(1, len(side)),
        mean_s=sum(latencies) / max(1, len(latencies)),
        p95_s=quantile(latencies, 0.95),
        within_target=weighted("within_target"),
        swaps=sum(piece.figures.swaps for piece in side),
        cache_hits=weighted("cache_hits"),
        cut_short=weighted("cut_short"),
    )


def _tiers(sides: Mapping[str, Sequence[Replayed]], catalogue: Catalogue) -> list[dict[str, Any]]:
    """Per tier, strongest first: what its requests got on either side."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name, side in sides.items():
        of_tier: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in _outcomes(side):
            of_tier[catalogue.tier_of(outcome.model).slug].append(outcome)
        for tier, outcomes in of_tier.items():
            found[tier][name] = _of_tier(outcomes)
    return [{"tier": tier, **found[tier]} for tier in sorted(found, key=rank, reverse=True)]


def _of_tier(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    latencies = _latencies(outcomes)
    on_time = sum(o.ending is Ending.ANSWERED and o.latency_s <= o.target_s for o in outcomes)
    return {
        "requests": len(outcomes),
        "mean_s": sum(latencies) / max(1, len(latencies)),
        "p95_s": quantile(latencies, 0.95),
        "within_target": on_time / len(outcomes),
    }


def _curve(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Share of all requests answered within a time: a curve that ends below 1 left somebody out."""
    latencies = _latencies(outcomes)
    ranks = range(0, len(latencies), max(1, len(latencies) // CURVE_POINTS))
    return {
        "s": [round(latencies[rank], 3) for rank in ranks],
        "share": [round((rank + 1) / len(outcomes), 4) for rank in ranks],
    }


def _outcomes(side: Sequence[Replayed]) -> list[Outcome]:
    return [outcome for piece in side for outcome in piece.result.history.outcomes]


def _latencies(outcomes: Sequence[Outcome]) -> list[float]:
    return sorted(outcome.latency_s for outcome in outcomes if outcome.ending is Ending.ANSWERED)
