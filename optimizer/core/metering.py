"""Metering: what is counted and measured, by name and labels, in total and minute by minute.

Rule: bounded. Names and label names are declared beforehand, and a name keeps at most `MOST_SERIES` sets of label
values; further ones count as "other". Quantiles come from buckets a quarter of a doubling wide, so that minutes can
be added to hours. Must not know: what is measured, where it is stored, the clock.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MINUTE_S = 60.0
MOST_SERIES = 300  # the 131 agents of the strategy, twice over
MOST_PENDING = 20_000  # minutes of series kept while the database is away, newest win
OTHER = "other"

STEPS = 4  # buckets per doubling: a quantile is off by at most 2^(1/8) - 1 = 9 %
LOWEST, HIGHEST = -10 * STEPS, 20 * STEPS  # bounds 2^-10 (about 1 ms) to 2^20; beyond counts in the outermost

SMALLEST = 2.0 ** (LOWEST / STEPS)

Labels = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A name's meaning. Counters end in `_total`; units are base units (seconds, bytes, tokens) and in the name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    stored: bool = True  # False: totals only, no minutes (one per agent would be many)


def bucket_of(value: float) -> int:
    """The bucket i with 2^((i-1)/4) < value <= 2^(i/4)."""
    if value <= SMALLEST:
        return LOWEST
    return min(HIGHEST, math.ceil(math.log2(value) * STEPS))


def upper_bound(bucket: int) -> float:
    """The largest value that falls into a bucket."""
    return float(2.0 ** (bucket / STEPS))


@dataclass(slots=True)
class Distribution:
    """Values seen: how many, their sum and extremes, and how many in each bucket."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, value: float, sketched: bool) -> None:
        self.count += 1
        self.total += value
        if value < self.least:
            self.least = value
        if value > self.most:
            self.most = value
        if sketched:
            bucket = bucket_of(value)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: "Distribution") -> None:
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float:
        """0.0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """The middle of the nearest-rank value's bucket, within the extremes seen; 0.0 of nothing."""
        rank = max(1, math.ceil(q * sum(self.buckets.values())))
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(max(upper_bound(bucket) * 2 ** (-0.5 / STEPS), self.least), self.most)
        return 0.0

    def at_most(self, bound: float) -> int:
        """How many values were at most `bound`; exact where `bound` is a bucket's."""
        last = bucket_of(bound)
        return sum(count for bucket, count in self.buckets.items() if bucket <= last)


@dataclass(frozen=True, slots=True)
class Point:
    """What one series saw within one minute; `start` in seconds since the epoch."""

    name: str
    labels: Labels
    start: float
    values: Distribution


@dataclass(slots=True)
class Series:
    """One name with one set of label values. `minute` holds what nobody has fetched of `start` to `end`."""

    labels: Labels
    sketched: bool
    past: Distribution = field(default_factory=Distribution)  # all that was fetched or is over
    minute: Distribution = field(default_factory=Distribution)
    start: float = 0.0
    end: float = 0.0


class Meter:
    """Totals since the start, the latest gauges, and the minutes that nobody has fetched yet."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families: Mapping[str, Family] = {family.name: family for family in families}
        self.gauges: dict[str, dict[Labels, float]] = {name: {} for name in self.families}
        self.lost = 0  # points dropped because nobody fetched them in time
        self._series: dict[str, dict[tuple[str, ...], Series]] = {name: {} for name in self.families}
        self._pending: dict[tuple[str, Labels, float], Distribution] = {}

    def add(self, name: str, at: float, value: float, *labels: str) -> None:
        """Add to a counter, or note a histogram's value. `at` in seconds since the epoch.

        `labels` are values in the family's order. Raises KeyError for an unknown name, ValueError for wrong labels.
        """
        self._add(name, at, value, labels)

    def gauge(self, name: str, at: float, value: float, *labels: str) -> None:
        """Note a state at a moment; the minutes keep its mean and extremes."""
        self.gauges[name][self._add(name, at, value, labels).labels] = value

    def forget_gauges(self, name: str) -> None:
        """Drop a gauge's series, before those that still exist are noted again."""
        self.gauges[name].clear()

    def totals(self, name: str) -> dict[Labels, Distribution]:
        """Everything since the start, by labels."""
        totals: dict[Labels, Distribution] = {}
        for series in self._series[name].values():
            totals[series.labels] = whole = Distribution()
            whole.merge(series.past)
            whole.merge(series.minute)
        return totals

    def drain(self) -> list[Point]:
        """Everything not fetched yet. Points of a minute under way may be fetched in parts: they add up."""
        for name, some in self._series.items():
            for series in some.values():
                self._fetch(name, series)
        pending, self._pending = self._pending, {}
        return [Point(name, labels, start, values) for (name, labels, start), values in pending.items()]

    def put_back(self, points: Iterable[Point]) -> None:
        """Points that could not be stored, for another try."""
        for point in points:
            self._keep(point.name, point.labels, point.start, point.values)

    def _add(self, name: str, at: float, value: float, labels: tuple[str, ...]) -> Series:
        """The hot path: two look-ups, a comparison and a few additions."""
        series = self._series[name].get(labels) or self._made(name, labels)
        if not series.start <= at < series.end:
            self._fetch(name, series)
            series.start = at // MINUTE_S * MINUTE_S
            series.end = series.start + MINUTE_S
        series.minute.add(value, series.sketched)
        return series

    def _made(self, name: str, values: tuple[str, ...]) -> Series:
        family, some = self.families[name], self._series[name]
        if len(values) != len(family.labels):
            raise ValueError(f"{name} has the labels {family.labels}")
        others = (OTHER,) * len(values)
        if len(some) >= MOST_SERIES and values != others:
            return some.get(others) or self._made(name, others)
        labels = tuple(zip(family.labels, values, strict=True))
        series = some[values] = Series(labels, family.kind is not Kind.COUNTER)
        return series

    def _fetch(self, name: str, series: Series) -> None:
        """Move what the series saw since the last time to the pending points."""
        if series.minute.count:
            if self.families[name].stored:
                self._keep(name, series.labels, series.start, series.minute)
            series.past.merge(series.minute)
            series.minute = Distribution()

    def _keep(self, name: str, labels: Labels, start: float, values: Distribution) -> None:
        known = self._pending.get((name, labels, start))
        if known is not None:
            known.merge(values)
            return
        if len(self._pending) >= MOST_PENDING:
            self._pending.pop(next(iter(self._pending)))
            self.lost += 1
        self._pending[name, labels, start] = values
