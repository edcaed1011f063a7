"""Metrics by the minute, rolled up by the hour.

Rule: writing adds to what the bucket holds already, so a restart within a minute loses nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from django.db import transaction

from controlplane import storable
from controlplane.models import Metric

_RESOLUTION_S = {Metric.Resolution.MINUTE: 60, Metric.Resolution.HOUR: 3600}
_Key = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """Values of one series within one bucket. `start` in seconds since the epoch; it is floored to the bucket."""

    name: str
    start: float
    count: int
    sum: float
    min: float
    max: float
    labels: Mapping[str, str] = field(default_factory=dict)
    sketch: Mapping[str, int] = field(default_factory=dict)  # histogram bucket -> count

    @property
    def labels_text(self) -> str:
        return ",".join(f"{name}={self.labels[name]}" for name in sorted(self.labels))

    def plus(self, other: "MetricPoint | Metric") -> "MetricPoint":
        """Both, as one bucket."""
        sketch = dict(self.sketch)
        for bucket, count in other.sketch.items():
            sketch[bucket] = sketch.get(bucket, 0) + count
        return replace(
            self,
            count=self.count + other.count,
            sum=self.sum + other.sum,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            sketch=sketch,
        )


def save_metrics(points: Iterable[MetricPoint], resolution: str = Metric.Resolution.MINUTE) -> int:
    """Add points to their buckets, in one transaction; returns the number of buckets written."""
    width = _RESOLUTION_S[Metric.Resolution(resolution)]
    merged: dict[_Key, MetricPoint] = {}
    for point in points:
        key = (storable.text(point.name, 60), storable.text(point.labels_text, 200), point.start // width * width)
        merged[key] = merged[key].plus(point) if key in merged else point
    if not merged:
        return 0
    with transaction.atomic():
        starts = {storable.moment(start) for _, _, start in merged}
        for row in Metric.objects.filter(resolution=resolution, start__in=starts, name__in={key[0] for key in merged}):
            key = (row.name, row.labels, row.start.timestamp())
            if key in merged:
                merged[key] = merged[key].plus(row)
        Metric.objects.bulk_create(
            [_row(key, point, resolution) for key, point in merged.items()],
            update_conflicts=True,
            unique_fields=["resolution", "name", "labels", "start"],
            update_fields=["count", "sum", "min", "max", "sketch"],
        )
    return len(merged)


def roll_up(before: float) -> int:
    """Turn the minutes of every whole hour that ended before `before` into hours; returns the minutes turned."""
    limit = storable.moment(before // 3600 * 3600)
    with transaction.atomic():
        minutes = Metric.objects.filter(resolution=Metric.Resolution.MINUTE, start__lt=limit)
        rows = list(minutes)
        save_metrics(map(_point, rows), Metric.Resolution.HOUR)
        minutes.delete()
    return len(rows)


def _point(row: Metric) -> MetricPoint:
    labels = dict(pair.split("=", 1) for pair in row.labels.split(",") if "=" in pair)
    return MetricPoint(row.name, row.start.timestamp(), row.count, row.sum, row.min, row.max, labels, row.sketch)


def _row(key: _Key, point: MetricPoint, resolution: str) -> Metric:
    name, labels, start = key
    return Metric(
        name=name,
        labels=labels,
        resolution=resolution,
        start=storable.moment(start),
        count=point.count,
        sum=storable.number(point.sum),
        min=storable.number(point.min),
        max=storable.number(point.max),
        sketch=dict(point.sketch),
    )
