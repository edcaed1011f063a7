"""The charts' history: steps of a range from stored minutes and hours, whatever the resolution."""

import pytest
from django.core.cache import cache

from controlplane import history, series, stores
from controlplane.models import Metric
from optimizer.core.metering import Distribution, Point

pytestmark = pytest.mark.django_db

NOW = 1_790_000_030.0
MINUTE_S, HOUR_S = 60.0, 3600.0


def save(name: str, at: float, *values: float, **labels: str) -> None:
    seen = Distribution()
    for value in values:
        seen.add(value, True)
    series.save([Point(name, tuple(sorted(labels.items())), at // MINUTE_S * MINUTE_S, seen)])


def test_a_range_has_a_point_for_every_step_and_says_nothing_of_empty_ones():
    answer = history.read("1h", NOW)
    assert len(answer["points"]) in (60, 61) and answer["step_s"] == 60
    assert [p["at"] for p in answer["points"]] == sorted(p["at"] for p in answer["points"])
    assert all(p["waiting"] == {} and p["hit_rate"] is None and p["ttft_p50_s"] is None for p in answer["points"])


def test_a_minute_holds_every_figure_of_the_charts():
    at = NOW - 300
    save("requests_waiting", at, 10, 20, model="tinyllama")
    save("request_duration_seconds", at, *range(1, 101), model="tinyllama")
    save("time_to_first_token_seconds", at, 2.0, model="tinyllama")
    save("time_to_first_token_seconds", at, 2.0, 2.0, model="qwen2.5-coder:7b")
    save("output_tokens_total", at, 500, 100, model="tinyllama")
    for outcome, count in (("exact", 1), ("semantic", 1), ("miss", 2), ("off", 9)):
        save("cache_requests_total", at, *[1] * count, outcome=outcome)
    save("model_switches_total", at, 3)
    save("gpu_seconds_total", at, 30.0, use="decode")
    [point] = [p for p in history.read("15m", NOW)["points"] if p["waiting"]]
    assert point["waiting"] == {"tinyllama": 15.0}
    assert point["response_p50_s"]["tinyllama"] == pytest.approx(50, rel=0.1)
    assert point["response_p95_s"]["tinyllama"] == pytest.approx(95, rel=0.1)
    assert point["ttft_p50_s"] == pytest.approx(2.0, rel=0.1)
    assert point["tokens_per_s"] == 10.0, "600 tokens in a minute"
    assert point["hit_rate"] == 0.5, "an agent that has the cache off asks it nothing"
    assert (point["swaps"], point["gpu_share"]) == (3, {"decode": 0.5})


def test_longer_ranges_add_minutes_up_and_read_hours_that_minutes_became():
    old, day = NOW - 5 * 24 * HOUR_S, NOW - 20 * HOUR_S
    for minute in range(30):
        save("model_switches_total", old // HOUR_S * HOUR_S + minute * MINUTE_S, 1)
        save("output_tokens_total", day // HOUR_S * HOUR_S + minute * MINUTE_S, 60, model="tinyllama")
    stores.roll_up(NOW - 2 * 24 * HOUR_S)
    assert Metric.objects.filter(resolution="hour").count() == 1
    week = history.read("7d", NOW)["points"]
    assert sum(p["swaps"] for p in week) == 30 and max(p["swaps"] for p in week) == 30
    assert max(p["tokens_per_s"] for p in history.read("24h", NOW)["points"]) == 1.0
    assert sum(p["swaps"] for p in history.read("24h", NOW)["points"]) == 0


def test_a_step_that_has_just_begun_counts_by_the_time_it_has_lasted():
    now = NOW // 60 * 60 + 15
    save("output_tokens_total", now, 150, model="tinyllama")
    assert history.read("15m", now)["points"][-1]["tokens_per_s"] == 10.0


def test_many_pages_are_one_question(django_assert_num_queries):
    cache.clear()
    with django_assert_num_queries(2):
        first = history.read("15m")
        assert history.read("15m") == first
    cache.clear()


def test_an_unknown_range_is_the_callers_fault():
    with pytest.raises(KeyError):
        history.read("1y", NOW)
