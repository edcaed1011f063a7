"""Notices when the wall clock jumps, so that nothing is deleted by a clock that may be wrong.

Rule: the monotonic clock is the measure; it never jumps. Everything that waits or limits goes by that one anyway.
Must not know: what would be deleted.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("narrowgauge.clock")

JUMP_S = 600.0  # more than any correction that NTP makes by itself
DOUBT_S = 86_400.0  # for somebody to look and to mend it


class ClockDoubt:
    """`justified()` now and then: whether the wall clock has jumped within the last day."""

    def __init__(
        self, wall: Callable[[], float] = lambda: time.time(), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()
        self._until = monotonic()

    def justified(self) -> bool:
        """True for a day after a jump of more than ten minutes, either way; a jump is logged once."""
        now = self._monotonic()
        offset = self._wall() - now
        jump_s, self._offset = offset - self._offset, offset
        if abs(jump_s) > JUMP_S:
            self._until = now + DOUBT_S
            way = "forward" if jump_s > 0 else "back"
            log.error("the clock jumped %s by %.0f s: no history is deleted for a day", way, abs(jump_s))
        return now < self._until
