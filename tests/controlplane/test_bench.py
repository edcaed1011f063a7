"""`manage.py bench` runs and its figures hang together (short: what they are, docs/performance.md says)."""

import json

import pytest

from tests.served import manage


@pytest.mark.slow
def test_the_door_is_measured_beside_a_bare_one():
    run = manage("bench", "--only", "door", "--seconds", "0.3", "--json")
    assert run.returncode == 0, run.stderr
    door = json.loads(run.stdout)["door"]
    assert set(door) == {"hello", "cache_hit", "simulated"}
    for rows in door.values():
        for row in rows.values():
            assert row["per_s"] > 0 and row["cpu_ms"] >= 0 and row["p50_ms"] > 0
    assert door["cache_hit"]["1"]["rate_ratio"] < 1.5


def test_nonsense_is_refused():
    assert manage("bench", "--seconds", "0").returncode == 1
