"""An event loop whose clock jumps to the next thing to do: hours of the real engine in seconds of a test."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from optimizer.backends import simulated

TICK_S = 0.5  # how often the simulated card looks at a run; a fiftieth of that in real time
STEP_S = 1e-6  # a real clock never stands still: who waits for less than it can tell would wait for ever


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Waits for nothing: the time that would be waited passes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self.now += STEP_S if ready or not timeout else max(STEP_S, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Callable[[Callable[[], float]], Coroutine[Any, Any, Any]]) -> Any:
    """The result of `main(clock)` on a virtual loop, with the simulated card on the same clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.MonkeyPatch.context() as patch:
        clock = runner.get_loop().time
        patch.setattr(simulated, "time", SimpleNamespace(monotonic=clock))
        patch.setattr(simulated, "_TICK_S", TICK_S)
        return runner.run(main(clock))
