"""Series survive the database: minutes add up, become hours, and read as one."""

import pytest
from django.db import OperationalError

from controlplane import data_dir, monitoring, rota, series, stores
from controlplane.models import Metric
from optimizer.core.metering import Distribution, Point
from optimizer.core.thresholds import Thresholds, changed
from tests.test_runner import House

NOW = 1_790_000_000.0
HOUR_S, DAY_S = 3600.0, 86_400.0


def point(start: float, *values: float, name: str = "took_seconds", model: str = "tinyllama") -> Point:
    seen = Distribution()
    for value in values:
        seen.add(value, True)
    return Point(name, (("model", model),), start // 60 * 60, seen)


@pytest.mark.django_db
def test_parts_of_a_minute_add_up():
    series.save([point(NOW, 1.0, 2.0), point(NOW, 4.0, model="qwen2.5-coder:7b")])
    series.save([point(NOW, 8.0)])
    [one, two] = series.read("took_seconds", NOW - 60, NOW + 60)
    assert one.labels == (("model", "qwen2.5-coder:7b"),)
    assert (two.values.count, two.values.total, two.values.least, two.values.most) == (3, 11.0, 1.0, 8.0)
    assert series.read("took_seconds", NOW - 60, NOW + 60, model="tinyllama") == [two]


@pytest.mark.django_db
def test_old_minutes_become_hours_and_quantiles_survive():
    old = NOW - 3 * DAY_S
    series.save([point(old + 60 * n, 1.0, 2.0, 4.0) for n in range(120)] + [point(NOW, 16.0)])
    before = series.total("took_seconds", old, NOW + 60).quantile(0.5)
    assert stores.roll_up_old(NOW) == 120
    assert set(Metric.objects.values_list("resolution", flat=True)) == {"hour", "minute"}
    after = series.total("took_seconds", old - HOUR_S, NOW + 60)
    assert (after.count, after.quantile(0.5)) == (361, before)


class Service:
    """What `Monitoring` needs of a service, with a database that may be away."""

    def __init__(self, runner) -> None:
        self.runner = runner
        self.away, self.due = False, True
        self.stored: list[Point] = []

    async def in_database(self, work, *arguments):
        if self.away:
            raise OperationalError("away")
        if work is rota.tune_is_due:
            return self.due
        self.stored += arguments[0]
        return None


async def test_a_database_that_is_away_loses_no_minute():
    house = House()
    service = Service(house.runner)
    house.runner.journal.monitor.evicted("tinyllama")
    service.away = True
    with pytest.raises(OperationalError):
        await monitoring.Monitoring(service).measure()
    service.away = False
    await monitoring.Monitoring(service).measure()
    assert sum(p.values.total for p in service.stored if p.name == "model_evictions_total") == 1


async def test_a_tuning_cycle_is_a_process_of_its_own_when_one_is_due(monkeypatch, caplog):
    caplog.set_level("INFO")
    started = []

    class Process:
        returncode = 0

        async def communicate(self):
            return b"none of 13 changes proved better\n  stay=30: x1.0\n", b"CommandError: no model serves opus\n"

    async def start(*command, env, **rest):
        started.append((command[2:], env["NARROWGAUGE_DATA_DIR"]))
        return Process()

    monkeypatch.setattr(monitoring.asyncio, "create_subprocess_exec", start)
    service = Service(House().runner)
    service.tables = type("Tables", (), {"thresholds": changed(Thresholds(), {"tuning_cycle_s": 600.0})})
    loops = monitoring.Monitoring(service)
    await loops.tune()
    assert started == []  # a fresh engine waits a whole cycle first
    loops._tuned_at -= 601.0
    await loops.tune()
    await loops.tune()
    assert started == [(("tune", "--quiet", "--due"), str(data_dir.path()))]
    assert "tuning cycle: none of 13 changes proved better" in caplog.text and "stay=30" not in caplog.text
    Process.returncode, loops._tuned_at = 1, loops._tuned_at - 601.0
    await loops.tune()
    assert "the tuning cycle failed: CommandError: no model serves opus" in caplog.text
    service.due = False  # switched off, or somebody else did it
    loops._tuned_at -= 601.0
    await loops.tune()
    assert len(started) == 2
