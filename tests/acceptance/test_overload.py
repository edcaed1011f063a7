"""A small part of `measure_overload`: twice capacity for a while, against a real process."""

import pytest

from tests.acceptance.measure_overload import measure

pytestmark = pytest.mark.slow


def test_at_twice_capacity_every_try_ends_once_and_retry_after_is_right(tmp_path):
    for attempt in ("first", "second"):  # what is measured in time may be disturbed once, what is counted never
        (tmp_path / attempt).mkdir()
        report = measure(tmp_path / attempt, requests=300, seconds=18.0, most_waiting=20)
        assert report["each_try_ended_once"], report
        assert set(report["ends"]) == {"answered", "refused 503"}, report
        assert report["tracebacks"] == 0
        assert report["rss_mb"]["peak"] <= report["rss_mb"]["start"] + 100, report["rss_mb"]
        told, seen = report["retry_after"], report["dashboard"]
        promised = told["judged"] >= 40 and told["median_error"] <= 0.25 and told["queue_filled_median"] >= 0.7
        if promised and seen["frames"] >= 10 and seen["longest_gap_s"] <= 8.0:
            return
    raise AssertionError(report)
