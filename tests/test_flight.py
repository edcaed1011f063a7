"""A follower hears of patience that ran out only when nothing came meanwhile."""

import asyncio
import time
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from optimizer.core.errors import Cancelled
from optimizer.flight import Flight
from optimizer.ports import Delta

PATIENCE_S = 0.01


def flight() -> Flight:
    return Flight(SimpleNamespace(job=SimpleNamespace(id="f")), 0.0, 0.0)


async def test_silence_is_told_once_a_patience():
    async with aclosing(flight().follow(PATIENCE_S)) as items:
        assert [await anext(items), await anext(items)] == [None, None]


@pytest.mark.parametrize("ends", [False, True], ids=["item", "end"])
async def test_what_came_in_the_same_turn_of_a_busy_loop_is_no_silence(ends):
    followed, loop = flight(), asyncio.get_running_loop()
    happens = (lambda: followed.fail(Cancelled("by ann"))) if ends else (lambda: followed.add(Delta("a")))
    loop.call_later(PATIENCE_S * 1.2, happens)
    loop.call_soon(time.sleep, PATIENCE_S * 5)  # the loop is busy: both timers are due when it looks again
    async with aclosing(followed.follow(PATIENCE_S)) as items:
        if ends:
            with pytest.raises(Cancelled):
                await anext(items)
        else:
            assert await anext(items) == Delta("a")
