"""Tuning: which changes to try, whether a replay proves one, and whether it kept its promise.

Rule: a change is accepted only when it was replayed on recorded traffic and is at least 3 % better on average,
better in at least 6 of 8 pieces (research/scheduling.md, "Tuning by replay"), and better at the far end of its 95 %
interval too; nothing leaves the bounds of `BOUNDS`, and what was tried lately is left alone.
Must not know: how a replay works, who applies a change.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.core.thresholds import ThresholdError, Thresholds, changed

LEAST_GAIN = 0.03
LEAST_SHARE_BETTER = 6 / 8
LEAST_PIECES = 8
MOST_CUT_SHORT = 0.01  # share of answers that a shorter limit may cut off
MOST_WORSE = 0.1  # a change that makes reality this much worse than expected without it is rolled back
COOLDOWN_CYCLES = 12  # cycles that a name rests after it was proposed, changed or rolled back: an hour at 300 s
T_95 = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}  # Student's t, 95 %, pieces - 1 degrees


@dataclass(frozen=True, slots=True)
class Figures:
    """What one piece of traffic got. Seconds, shares of all requests; `lateness` = mean of latency / target."""

    requests: int
    lateness: float
    mean_s: float
    p95_s: float
    within_target: float
    swaps: float
    cache_hits: float = 0.0
    cut_short: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change to try: threshold name -> value, and in a sentence what it hopes for."""

    name: str
    change: Mapping[str, Any]
    why: str


# Limits of what the tuner itself may set, narrower than what an admin may.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "max_tokens_scale": (0.5, 1.0),
    "cache_ttl_s": (60.0, 86_400.0),
    "batch_max": (1, 8),
    "stay": (2.0, 60.0),
    "urgent": (0.0, 8.0),
    "longest_waiting_every": (2, 32),
    "batch_window_ms": (10.0, 1000.0),
}
ORDERS = ("wfq", "shortest")  # fifo is never better than wfq (docs/scheduling.md) and stays a person's choice


def candidates(current: Thresholds, resting: Iterable[str] = ()) -> list[Candidate]:
    """Every change worth a replay now. `resting` are thresholds that were touched lately.

    The first three are the strategy's adjustments; the others turn the scheduler's own screws.
    """
    t = current
    wishes: list[tuple[str, Any, str]] = [
        ("max_tokens_scale", round(t.max_tokens_scale * 0.8, 3), "shorter answers free the slots sooner"),
        ("cache_ttl_s", t.cache_ttl_s * 1.5, "answers kept longer are given again more often"),
        ("batch_max", t.batch_max + 1, "larger batches share more work"),
        ("stay", t.stay * 2, "models stay longer, fewer swaps"),
        ("stay", t.stay / 2, "models make room sooner, shorter waits for the others"),
        ("urgent", t.urgent * 2 if t.urgent else 1.0, "only the very overdue come in early"),
        ("urgent", t.urgent / 2, "the overdue come in sooner"),
        ("longest_waiting_every", t.longest_waiting_every * 2, "fewer starts out of order"),
        ("longest_waiting_every", t.longest_waiting_every // 2, "the longest waiting go sooner"),
        ("batch_window_ms", t.batch_window_ms * 3, "fewer swaps for a single request"),
        ("batch_window_ms", t.batch_window_ms / 3, "a swap for a single request sooner"),
        *(("order", order, f"the order '{order}' inside a model") for order in ORDERS),
    ]
    rests = frozenset(resting)
    found = []
    for name, value, why in wishes:
        if name in BOUNDS:
            low, high = BOUNDS[name]
            value = type(getattr(t, name))(min(max(value, low), high))
        if name in rests or value == getattr(t, name) or _backwards(t, name, value):
            continue
        try:
            changed(t, {name: value})
        except ThresholdError:
            continue
        found.append(Candidate(f"{name}={value:g}" if name in BOUNDS else f"{name}={value}", {name: value}, why))
    return found


def _backwards(current: Thresholds, name: str, value: Any) -> bool:
    """A person's value outside the tuner's bounds is not pulled back into them."""
    now = getattr(current, name)
    return name in BOUNDS and not BOUNDS[name][0] <= now <= BOUNDS[name][1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay says of a change. `ratio` < 1 is better; `low`..`high` is its 95 % interval over the pieces."""

    accepted: bool
    reason: str
    ratio: float
    low: float
    high: float
    better_in: int
    pieces: int


def judge(before: Sequence[Figures], after: Sequence[Figures]) -> Verdict:
    """Compare the same pieces under two settings; at least one piece is needed."""
    ratios = [_ratio(new.lateness, old.lateness) for old, new in zip(before, after, strict=True)]
    mean_of = _ratio(sum(f.lateness for f in after), sum(f.lateness for f in before))
    better = sum(ratio < 1.0 for ratio in ratios)
    low, high = _interval(ratios, mean_of)
    cut = max(new.cut_short - old.cut_short for old, new in zip(before, after, strict=True))
    reason = _objection(mean_of, high, better, len(ratios), cut)
    return Verdict(not reason, reason or "proved", mean_of, low, high, better, len(ratios))


def _objection(ratio: float, high: float, better: int, pieces: int, cut: float) -> str:
    """Why a change is not accepted; "" when it is."""
    if pieces < LEAST_PIECES:
        return f"only {pieces} pieces of recorded traffic, {LEAST_PIECES} are needed"
    if cut > MOST_CUT_SHORT:
        return f"cuts {cut:.1%} of the answers short"
    if ratio > 1.0:
        return f"{ratio - 1.0:.1%} worse on average"
    if ratio == 1.0:
        return f"no difference on average, {LEAST_GAIN:.0%} are needed"
    if ratio > 1.0 - LEAST_GAIN:
        return f"{1.0 - ratio:.1%} better on average, {LEAST_GAIN:.0%} are needed"
    if better < math.ceil(LEAST_SHARE_BETTER * pieces):
        return f"better in {better} of {pieces} pieces, {math.ceil(LEAST_SHARE_BETTER * pieces)} are needed"
    if high >= 1.0:
        return f"its 95 % interval reaches x{high:.2f}: it may be chance"
    return ""


def best(judged: Iterable[tuple[Candidate, Verdict]]) -> tuple[Candidate, Verdict] | None:
    """The accepted candidate with the largest gain."""
    accepted = [(candidate, verdict) for candidate, verdict in judged if verdict.accepted]
    return min(accepted, key=lambda pair: pair[1].ratio, default=None)


def _ratio(new: float, old: float) -> float:
    return new / old if old > 0 else 1.0 if new <= 0 else math.inf


def _interval(ratios: Sequence[float], mean_of: float) -> tuple[float, float]:
    """About 95 %, from the spread of the log ratios over the pieces; the ratio itself when there is one piece."""
    logs = [math.log(ratio) for ratio in ratios if 0 < ratio < math.inf]
    count = len(logs)
    if count < 2 or mean_of <= 0:
        return mean_of, mean_of
    mean = sum(logs) / count
    variance = sum((value - mean) ** 2 for value in logs) / (count - 1)
    half = T_95.get(count, 2.0) * math.sqrt(variance / count)
    return mean_of * math.exp(-half), mean_of * math.exp(half)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change did: real lateness before and after, and what was to be expected after without the change."""

    before: float
    after: float
    expected: float
    verdict: str  # kept | worse | unclear


def check_effect(
    before: float, after: float, replayed_before: float, replayed_after: float, requests: int, least_requests: int
) -> Effect:
    """Whether a change kept what it promised.

    `before` and `after` are real lateness; traffic differs between the two. So both are replayed under the setting
    WITHOUT the change (`replayed_*`, 0.0 when they cannot be), and what that says of the traffic scales what was to
    be expected. The change is worse when reality is more than `MOST_WORSE` above it.
    """
    scale = replayed_after / replayed_before if replayed_before > 0 and replayed_after > 0 else 1.0
    expected = before * scale
    if requests < least_requests or expected <= 0:
        return Effect(before, after, expected, "unclear")
    return Effect(before, after, expected, "worse" if after > (1.0 + MOST_WORSE) * expected else "kept")
