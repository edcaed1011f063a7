"""Sliding windows and quantiles: what recent measurements say, forgetting what is old.

Rule: bounded in time and in samples, so that a bad minute is forgotten (DESIGN.md: "averages since start never
recover"). Must not know: what is measured.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the samples in a window; all 0.0 when there are none."""

    count: int
    mean: float
    p50: float
    p95: float
    worst: float


def quantile(ordered: Sequence[float], q: float) -> float:
    """The nearest-rank quantile of an ascending sequence; 0.0 when it is empty."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, round(q * len(ordered) + 0.5) - 1))]


def summary(values: Sequence[float]) -> Summary:
    return _of_ordered(sorted(values))


def _of_ordered(ordered: Sequence[float]) -> Summary:
    if not ordered:
        return Summary(0, 0.0, 0.0, 0.0, 0.0)
    mean = sum(ordered) / len(ordered)
    return Summary(len(ordered), mean, quantile(ordered, 0.5), quantile(ordered, 0.95), ordered[-1])


class Window:
    """Samples of the last `horizon_s` seconds, at most `most` of them (the newest win).

    Kept in order of value as well, so that a summary, which screens ask for every second, costs no sorting.
    """

    def __init__(self, horizon_s: float, most: int = 10_000) -> None:
        self._horizon_s = horizon_s
        self._most = most
        self._samples: deque[tuple[float, float]] = deque()
        self._ordered: list[float] = []

    def add(self, now: float, value: float) -> None:
        self._samples.append((now, value))
        insort(self._ordered, value)
        self._forget(now)

    def values(self, now: float) -> list[float]:
        self._forget(now)
        return [value for _, value in self._samples]

    def summary(self, now: float) -> Summary:
        self._forget(now)
        return _of_ordered(self._ordered)

    def _forget(self, now: float) -> None:
        oldest = now - self._horizon_s
        while self._samples and (self._samples[0][0] < oldest or len(self._samples) > self._most):
            _, value = self._samples.popleft()
            del self._ordered[bisect_left(self._ordered, value)]
