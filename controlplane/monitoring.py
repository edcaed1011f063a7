"""The monitor's loops in the engine's process: sample and store what was measured, and do the rota.

Rule: nothing here waits on the request path; a database that is away keeps the points for the next round. A cycle
of the tuner is heavy, so it runs in a process of its own at low priority.
Must not know: what is measured (optimizer/monitor.py), what the chores are (controlplane/rota.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from django.db import DatabaseError

from controlplane import rota, series

if TYPE_CHECKING:
    from controlplane.service import Service

MEASURE_EVERY_S = 5.0  # a minute's gauges are the mean of 12 looks


class Monitoring:
    """What the service repeats for the monitor, see `loops`."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._tuned_at = time.monotonic()

    def loops(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        """(seconds between two times, what to do)."""
        chores = [(duty.every_s, partial(self.do, name)) for name, duty in rota.ROTA.items()]
        return [(MEASURE_EVERY_S, self.measure), (rota.TUNE_LOOK_S, self.tune), *chores]

    async def measure(self) -> None:
        """Note the state of this moment, and add what was measured since the last time to its minutes."""
        runner = self._service.runner
        monitor = runner.journal.monitor
        monitor.sample(runner.view()[0])
        points = monitor.meter.drain()
        try:
            await self._service.in_database(series.save, points)
        except DatabaseError:
            monitor.meter.put_back(points)
            raise

    async def do(self, chore: str) -> None:
        """Do a chore of the rota if it is due and nobody else does it."""
        await self._service.in_database(rota.do, chore, rota.celery_drives())

    async def tune(self) -> None:
        """Run a cycle of the tuner when one is due, and wait for its end; stopping ends it too.

        Not within a cycle's time of the start: an engine has better things to do then.
        """
        if time.monotonic() - self._tuned_at < self._service.tables.thresholds.tuning_cycle_s:
            return
        if not await self._service.in_database(rota.tune_is_due, rota.celery_drives()):
            return
        self._tuned_at = time.monotonic()
        command, environment = rota.tune_command()
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            said, complaints = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        rota.say_of_tune(process.returncode or 0, said.decode(errors="replace"), complaints.decode(errors="replace"))
