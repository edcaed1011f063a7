"""Measured series in the database: what the meter saw goes in, what a chart or a rule asks for comes out.

Rule: synchronous; called in a thread. Minutes and hours read as one: a question gets both, in order of time.
Must not know: what is measured, who asks.
"""

from collections.abc import Iterable

from controlplane import storable, stores
from controlplane.models import Metric
from optimizer.core.metering import Distribution, Point


def save(points: Iterable[Point]) -> int:
    """Add points to their minutes; returns the number of buckets written. Raises DatabaseError."""
    return stores.save_metrics(
        stores.MetricPoint(
            name=point.name,
            start=point.start,
            count=point.values.count,
            sum=point.values.total,
            min=point.values.least,
            max=point.values.most,
            labels=dict(point.labels),
            sketch={str(bucket): count for bucket, count in point.values.buckets.items()},
        )
        for point in points
    )


def read(name: str, since: float, until: float, **labels: str) -> list[Point]:
    """The points of a name that begin within [since, until), seconds since the epoch, in order of time.

    `labels` keeps the series that carry these values. Recent points are minutes, older ones hours.
    """
    rows = Metric.objects.filter(name=name, start__gte=storable.moment(since), start__lt=storable.moment(until))
    points = [_point(row) for row in rows.order_by("start", "labels")]
    return [point for point in points if labels.items() <= dict(point.labels).items()]


def total(name: str, since: float, until: float, **labels: str) -> Distribution:
    """All points of a question as one distribution."""
    whole = Distribution()
    for point in read(name, since, until, **labels):
        whole.merge(point.values)
    return whole


def _point(row: Metric) -> Point:
    labels = tuple(tuple(pair.split("=", 1)) for pair in row.labels.split(",") if "=" in pair)
    buckets = {int(bucket): count for bucket, count in row.sketch.items()}
    values = Distribution(row.count, row.sum, row.min, row.max, buckets)
    return Point(row.name, labels, row.start.timestamp(), values)
