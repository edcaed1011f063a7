"""A small part of `measure_overload`: twice capacity for a while, against a real process."""

import pytest

from tests.acceptance.measure_overload import measure

pytestmark = pytest.mark.slow


def test_at_twice_capacity_every_try_ends_once_and_retry_after_is_right(tmp_path):
    report = measure(tmp_path, requests=300, seconds=18.0, most_waiting=20)
    assert report["each_try_ended_once"], report
    assert set(report["ends"]) == {"answered", "refused 503"}, report
    assert report["tracebacks"] == 0
    told = report["retry_after"]
    assert told["judged"] >= 40 and told["median_error"] <= 0.25, told
    assert told["queue_filled_median"] >= 0.7, told
    assert report["rss_mb"]["peak"] <= report["rss_mb"]["start"] + 100, report["rss_mb"]
    assert report["dashboard"]["frames"] >= 10 and report["dashboard"]["longest_gap_s"] <= 8.0, report["dashboard"]
