"""The overview's charts over a longer time, from the stored minutes and hours.

Rule: read from the database only, so that it says the same after a restart and in every process. A range has so many
steps that a chart shows them; what is known of a step that has not ended is taken over the time it has lasted.
Synchronous. Must not know: who asks, or how a chart is drawn.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.core.cache import cache

from controlplane import storable
from controlplane.models import Metric
from optimizer.core.metering import Distribution

HITS = ("exact", "semantic", "coalesced")
_QUANTILES = ("request_duration_seconds", "time_to_first_token_seconds")  # these are read with their sketches
_NAMES = (
    "requests_waiting",
    "output_tokens_total",
    "cache_requests_total",
    "model_switches_total",
    "gpu_seconds_total",
)


@dataclass(frozen=True, slots=True)
class Range:
    """So much time in steps of so much."""

    label: str
    span_s: int
    step_s: int

    @property
    def cached_s(self) -> int:
        """How long an answer is given again: fifty open pages are one question. A week takes 0.4 s to read."""
        return max(15, self.step_s // 12)


# Minutes are kept for two days, then hours: seven days can only be read by the hour.
RANGES = {
    "15m": Range("15 min", 900, 60),
    "1h": Range("1 h", 3600, 60),
    "6h": Range("6 h", 21_600, 300),
    "24h": Range("24 h", 86_400, 900),
    "7d": Range("7 days", 604_800, 3600),
}

# Extremes are not read, so a quantile is the middle of its bucket.
_nothing = partial(Distribution, least=0.0, most=math.inf)
_Steps = dict[float, dict[str, dict[str, Distribution]]]  # start -> name -> label's value -> what was seen


def read(name: str, now: float | None = None) -> dict[str, Any]:
    """A range as plain data: `points` in order of time, models by name. Raises KeyError for an unknown range."""
    chosen = RANGES[name]
    if now is not None:
        return _read(name, chosen, now)
    key, ask = f"history-{name}", partial(_read, name, chosen)
    answer: dict[str, Any] = cache.get_or_set(key, lambda: ask(time.time()), chosen.cached_s)
    return answer


def _read(name: str, chosen: Range, now: float) -> dict[str, Any]:
    first = (now - chosen.span_s) // chosen.step_s * chosen.step_s
    steps = _steps(first, now, chosen.step_s)
    starts = [first + number * chosen.step_s for number in range(int((now - first) // chosen.step_s) + 1)]
    points = [_point(start, min(chosen.step_s, now - start), steps.get(start, {})) for start in starts]
    return {"range": name, "step_s": chosen.step_s, "since": now - chosen.span_s, "until": now, "points": points}


def _steps(since: float, until: float, step_s: int) -> _Steps:
    steps: _Steps = defaultdict(lambda: defaultdict(lambda: defaultdict(_nothing)))
    rows = Metric.objects.filter(start__gte=storable.moment(since), start__lt=storable.moment(until)).order_by()
    plain = rows.filter(name__in=_NAMES).values_list("name", "labels", "start", "count", "sum")
    for name, labels, start, count, total in plain.iterator(2000):
        seen = _of(steps, name, labels, start.timestamp() // step_s * step_s)
        seen.count += count
        seen.total += total
    sketched = rows.filter(name__in=_QUANTILES).values_list("name", "labels", "start", "sketch")
    for name, labels, start, sketch in sketched.iterator(2000):
        buckets = _of(steps, name, labels, start.timestamp() // step_s * step_s).buckets
        for bucket, count in sketch.items():
            buckets[int(bucket)] = buckets.get(int(bucket), 0) + count
    return steps


def _of(steps: _Steps, name: str, labels: str, start: float) -> Distribution:
    """The place for one row; every series read here has at most one label."""
    return steps[start][name][labels.partition("=")[2]]


def _point(start: float, lasted_s: float, seen: dict[str, dict[str, Distribution]]) -> dict[str, Any]:
    def by_label(name: str, value: Callable[[Distribution], float]) -> dict[str, float]:
        return {label: round(value(values), 3) for label, values in seen.get(name, {}).items()}

    def total(name: str, *labels: str) -> float:
        some = seen.get(name, {})
        return sum(values.total for label, values in some.items() if not labels or label in labels)

    first_token = _nothing()
    for values in seen.get("time_to_first_token_seconds", {}).values():
        first_token.merge(values)
    asked = total("cache_requests_total") - total("cache_requests_total", "off")
    return {
        "at": start,
        "waiting": by_label("requests_waiting", lambda values: values.mean),
        "response_p50_s": by_label("request_duration_seconds", lambda values: values.quantile(0.5)),
        "response_p95_s": by_label("request_duration_seconds", lambda values: values.quantile(0.95)),
        "ttft_p50_s": round(first_token.quantile(0.5), 3) if first_token.buckets else None,
        "tokens_per_s": round(total("output_tokens_total") / lasted_s, 2) if lasted_s else 0.0,
        "hit_rate": round(total("cache_requests_total", *HITS) / asked, 4) if asked else None,
        "swaps": round(total("model_switches_total")),
        "gpu_share": by_label("gpu_seconds_total", lambda values: values.total / lasted_s if lasted_s else 0.0),
    }
