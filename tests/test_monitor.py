"""What a real run on the simulated card leaves in the meter."""

from collections.abc import AsyncIterator

import pytest

from optimizer.core.errors import ModelNotFound
from optimizer.core.thresholds import Thresholds, changed
from tests.test_runner import House, until


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House(changed(Thresholds(), {"batch_window_ms": 1}))
    await made.runner.start()
    yield made
    await made.runner.close()


def totals(house: House, name: str) -> dict[str, float]:
    series = house.runner.journal.monitor.meter.totals(name)
    return {",".join(value for _, value in labels): round(d.total, 6) for labels, d in series.items()}


async def test_answers_work_and_loads_are_measured_where_they_happen(house):
    await house.ask("Say hello", model="tinyllama")
    await house.ask("Say hello", model="tinyllama")  # from the cache
    await house.ask("Say hello", model="opus")
    await until(lambda: len(house.memory.records) == 3)
    meter = house.runner.journal.monitor.meter
    assert totals(house, "requests_total") == {"tinyllama,replied": 2, "deepseek-r1:8b,replied": 1}
    assert totals(house, "cache_requests_total") == {"miss": 2, "exact": 1}
    written = sum(r.output_tokens for r in house.memory.records if r.cache == "miss")
    assert sum(totals(house, "output_tokens_total").values()) == written
    assert totals(house, "tokens_saved_total")["cache"] > 0
    assert set(totals(house, "model_load_seconds")) >= {"tinyllama", "deepseek-r1:8b"}
    assert totals(house, "slot_seconds_total")["tinyllama"] > 0 and set(totals(house, "agent_slot_seconds_total")) == {
        "a"
    }
    assert meter.totals("request_duration_seconds")[("model", "tinyllama"),].count == 2
    assert meter.totals("queue_wait_seconds")[("model", "tinyllama"),].count == 1


async def test_a_refusal_is_counted_by_its_reason(house):
    with pytest.raises(ModelNotFound):
        await house.ask(model="no-such-model")
    assert totals(house, "rejections_total") == {"model_not_found": 1}
    assert totals(house, "requests_total") == {"none,rejected": 1}


async def test_a_sample_notes_queues_memory_and_swaps(house):
    await house.ask(model="opus")
    await house.ask(model="sonnet")
    await until(lambda: not house.runner.journal.evictions_under_way)
    monitor = house.runner.journal.monitor
    monitor.sample(house.runner.view()[0])
    monitor.sample(house.runner.view()[0])
    assert monitor.meter.gauges["slots"] == {(): 2.0}
    assert sum(monitor.meter.gauges["model_loaded_bytes"].values()) == monitor.meter.gauges["vram_used_bytes"][()]
    assert totals(house, "model_switches_total")[""] == house.runner.view()[0].counters.swaps
    assert totals(house, "model_evictions_total")["deepseek-r1:8b"] == 1
