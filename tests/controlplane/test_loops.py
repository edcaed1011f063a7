"""Work that a process repeats."""

import asyncio
import logging

import pytest
from django.db import OperationalError

from controlplane.loops import every
from optimizer.core.errors import ConfigurationError


@pytest.mark.parametrize("error", [OperationalError("gone"), ConfigurationError("no model"), KeyError("a bug")])
async def test_nothing_that_goes_wrong_ends_a_loop_and_it_is_said_once(caplog, error):
    caplog.set_level(logging.INFO, "narrowgauge.loops")
    times, done = 0, asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times < 4:
            raise error
        if times == 5:
            done.set()

    loop = asyncio.create_task(every(0.0, work))
    async with asyncio.timeout(5):
        await done.wait()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.INFO]
    assert str(error.args[0]) in caplog.text and "works again" in caplog.text
