"""What monitoring costs: `python -m tests.measure_monitoring`. CPU time, so that a busy machine does not matter much.

The worst case on purpose: answers from the cache (nothing else to do). What the hooks add to a request is the median
of the differences of neighbouring rounds with and without them, in one process; what a request costs is measured of a
real server over HTTP, on one connection that is kept. Loops: what the engine does every five seconds and every minute,
on a database with a busy quarter of an hour in it.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

REQUESTS = 1500
IN_ROUND, ROUNDS = 100, 150
HOOKS = ("request_ended", "generated", "held_slot", "loaded", "evicted", "backend_lost", "sample")
RECORDED, PROMPT_BYTES = 5000, 3600
BODY = {"model": "tinyllama", "messages": [{"role": "user", "content": "Say hello"}]}


async def hooks() -> float:
    """CPU seconds that monitoring adds to a request."""
    from controlplane.wire import WireApp
    from optimizer.monitor import Monitor
    from tests.asgi_client import Client
    from tests.test_runner import AGENTS, House

    house = House()
    await house.runner.start()
    client = Client(WireApp(lambda: house.runner, lambda key: AGENTS["a"], "0"), key="any")

    async def cpu_s() -> float:
        began = time.process_time()
        for _ in range(IN_ROUND):
            assert (await client.post("/v1/chat/completions", BODY)).status == 200
        return (time.process_time() - began) / IN_ROUND

    originals = {name: getattr(Monitor, name) for name in HOOKS}
    seen: dict[bool, list[float]] = {True: [], False: []}
    await cpu_s()
    for number in range(2 * ROUNDS):
        on = number % 2 == number // 2 % 2  # on off off on: a drift of the machine falls on both alike
        for name, original in originals.items():
            setattr(Monitor, name, original if on else lambda *arguments: None)
        seen[on].append(await cpu_s())
        house.memory.records.clear()
        house.runner.journal.monitor.meter.drain()
    await house.runner.close()
    return statistics.median(with_it - without for with_it, without in zip(seen[True], seen[False], strict=True))


def request(directory: Path) -> float:
    """CPU seconds of the server for a request over HTTP, monitoring included."""
    from tests.served import Served, bearer

    def cpu_s() -> float:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Served(directory, "simulated") as server, httpx.Client(trust_env=False, timeout=60) as client:
        headers = bearer(server.key("tester"))

        def ask() -> None:
            answer = client.post(f"{server.url}/v1/chat/completions", json=BODY, headers=headers)
            assert answer.status_code == 200, answer.text

        for _ in range(50):
            ask()
        began = cpu_s()
        for _ in range(REQUESTS):
            ask()
        return (cpu_s() - began) / REQUESTS


def loops() -> tuple[float, float]:
    """CPU seconds of one measurement, and of one look of the rules."""
    from controlplane import database, series, stores, watch
    from optimizer.monitor import Monitor
    from tests.controlplane.test_stores import RECORD

    database.bring_up_to_date()
    now = time.time()
    buffer, monitor = stores.RecordBuffer(), Monitor(lambda: now)
    for n in range(RECORDED):
        model, agent = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")[n % 3], f"agent-{n % 131}"
        text = f"{n}: " + "why is it so? " * (PROMPT_BYTES // 14)
        record = replace(
            RECORD, id=f"r{n}", agent=agent, model=model, arrived_at=now - 1 - n % 880, prompt_original=text
        )
        buffer.save(record)
        monitor.request_ended(record, None)
    buffer.flush()
    points = monitor.meter.drain()

    def cpu_s(work: Callable[[], Any]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return (
        statistics.median(cpu_s(lambda: series.save(points)) for _ in range(9)),
        statistics.median(cpu_s(lambda: watch.look(now)) for _ in range(5)),
    )


def main() -> None:
    import django

    from controlplane import data_dir

    with tempfile.TemporaryDirectory() as directory:
        request_s = request(Path(directory) / "served")
        data_dir.use(Path(directory) / "here")
        os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
        django.setup()
        measure_s, look_s = loops()
        more_s = asyncio.run(hooks())
    share, beside = more_s / request_s, measure_s / 5.0 + look_s / 60.0
    sys.stdout.write(
        f"a request costs the server {request_s * 1e6:.0f} us of CPU, {more_s * 1e6:.1f} us of them for monitoring: "
        f"{share:.1%}\nevery 5 s {measure_s * 1e3:.1f} ms, every minute {look_s * 1e3:.0f} ms: {beside:.2%} of a core\n"
        f"together at full load: {share + beside:.1%} of throughput\n"
    )


if __name__ == "__main__":
    main()
