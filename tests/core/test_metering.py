"""Meters add up, stay bounded, and their quantiles are as exact as promised."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core import metering
from optimizer.core.metering import Distribution, Family, Kind, Meter, bucket_of, upper_bound

FAMILIES = (
    Family("asked_total", Kind.COUNTER, "Asked.", ("model",)),
    Family("took_seconds", Kind.HISTOGRAM, "Took.", ("model",)),
    Family("waiting", Kind.GAUGE, "Waits.", ("model",)),
    Family("agents_total", Kind.COUNTER, "Agents.", ("agent",), stored=False),
)
seconds = st.floats(0.001, 10_000)


def filled(values: list[float]) -> Distribution:
    made = Distribution()
    for value in values:
        made.add(value, True)
    return made


@given(seconds)
def test_a_value_lies_within_its_bucket(value: float) -> None:
    bucket = bucket_of(value)
    assert value <= upper_bound(bucket) * (1 + 1e-12)
    assert bucket == metering.LOWEST or value > upper_bound(bucket - 1) * (1 - 1e-12)


@given(st.lists(seconds, min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_off_by_nine_percent_at_most(values: list[float], q: float) -> None:
    true = sorted(values)[math.ceil(q * len(values)) - 1]
    assert true / 1.1 <= filled(values).quantile(q) <= true * 1.1


@given(st.lists(seconds, max_size=30), st.lists(seconds, max_size=30))
def test_two_halves_merge_into_the_whole(first: list[float], second: list[float]) -> None:
    whole, half = filled(first + second), filled(first)
    half.merge(filled(second))
    assert (half.count, half.least, half.most, half.buckets) == (whole.count, whole.least, whole.most, whole.buckets)
    assert half.total == pytest.approx(whole.total)


def test_the_powers_of_two_are_exact_bounds() -> None:
    values = filled([0.5, 1.0, 1.0001, 5.0])
    assert [values.at_most(bound) for bound in (0.25, 0.5, 1.0, 2.0, 8.0)] == [0, 1, 2, 3, 4]


def test_minutes_are_fetched_once_and_can_be_put_back() -> None:
    meter = Meter(FAMILIES)
    meter.add("asked_total", 61.0, 1, "a")
    meter.add("asked_total", 119.0, 2, "a")
    meter.add("asked_total", 120.0, 1, "a")
    points = meter.drain()
    assert [(p.start, p.values.total) for p in points] == [(60.0, 3.0), (120.0, 1.0)]
    assert meter.drain() == []
    meter.put_back(points)
    meter.add("asked_total", 62.0, 1, "a")
    assert [(p.start, p.values.total) for p in meter.drain()] == [(60.0, 4.0), (120.0, 1.0)]
    assert meter.totals("asked_total")[("model", "a"),].total == 5.0


def test_a_gauge_shows_the_last_value_and_the_minute_its_extremes() -> None:
    meter = Meter(FAMILIES)
    for value in (3.0, 9.0, 4.0):
        meter.gauge("waiting", 30.0, value, "a")
    assert meter.gauges["waiting"] == {(("model", "a"),): 4.0}
    [point] = meter.drain()
    assert (point.values.least, point.values.most, point.values.count) == (3.0, 9.0, 3)


def test_series_beyond_the_bound_count_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "MOST_SERIES", 2)
    meter = Meter(FAMILIES)
    for name in "abcd":
        meter.add("asked_total", 0.0, 1, name)
    meter.gauge("waiting", 0.0, 1.0, "a")
    for name in "bcd":
        meter.gauge("waiting", 0.0, 7.0, name)
    assert meter.gauges["waiting"][("model", "other"),] == 7.0
    assert {labels[0][1]: d.count for labels, d in meter.totals("asked_total").items()} == {"a": 1, "b": 1, "other": 2}


def test_minutes_that_nobody_fetches_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "MOST_PENDING", 3)
    meter = Meter(FAMILIES)
    for minute in range(5):
        meter.add("asked_total", minute * 60.0, 1, "a")
    assert [point.start for point in meter.drain()] == [120.0, 180.0, 240.0]
    assert meter.lost == 2


def test_what_is_not_stored_has_totals_alone() -> None:
    meter = Meter(FAMILIES)
    for at in (0.0, 60.0):
        meter.add("agents_total", at, 1, "scout")
    assert meter.drain() == []
    assert meter.totals("agents_total")[("agent", "scout"),].total == 2.0


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    meter = Meter(FAMILIES)
    for at in (120.0, 60.0, 121.0):
        meter.add("asked_total", at, 1, "a")
    assert {point.start: point.values.total for point in meter.drain()} == {120.0: 2.0, 60.0: 1.0}
    assert meter.totals("asked_total")[("model", "a"),].total == 3.0


def test_a_name_is_used_as_it_was_declared() -> None:
    meter = Meter(FAMILIES)
    with pytest.raises(ValueError, match="labels"):
        meter.add("asked_total", 0.0, 1)
    with pytest.raises(KeyError):
        meter.add("unheard_of", 0.0, 1)
