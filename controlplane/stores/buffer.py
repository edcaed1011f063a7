"""A bounded buffer between the event loop, which must not wait, and the database, which may be slow or away.

Rule: an item is written once or counted as dropped; a failing database costs one log line, not one per try.
Must not know: what the items are.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
BATCH = 500  # items per write: 40 to 160 ms in one transaction for records of 7 kB (docs/stored-state.md)


class WriteBuffer(Generic[Item]):
    """Items wait here for `flush`. `write` stores a list of them in one transaction."""

    def __init__(self, what: str, write: Callable[[list[Item]], None], most: int) -> None:
        self._what, self._write, self._most = what, write, most
        self._waiting: deque[Item] = deque()
        self._flushing = threading.Lock()
        self.trouble = ""  # why the last write did not go through
        self.dropped = 0  # items lost since the start: the buffer was full, or the database refused them

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item) -> None:
        """Append; never waits. When the buffer is full the item is dropped and counted."""
        if len(self._waiting) >= self._most:
            if not self.dropped:
                log.error("%s: buffer full at %d, newest are dropped", self._what, self._most)
            self.dropped += 1
            return
        self._waiting.append(item)

    def flush(self) -> int:
        """Write what is waiting; returns how many were written. A database that is away keeps its batch for later."""
        written = 0
        with self._flushing:
            for _ in range(-(-len(self._waiting) // BATCH)):  # what comes in meanwhile is for the next flush
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    self._write(batch)
                except (OperationalError, InterfaceError) as error:
                    self._waiting.extendleft(reversed(batch))
                    self._log_failure(error)
                    break
                except DatabaseError as error:
                    written += self._one_by_one(batch, error)
                else:
                    written += len(batch)
                    self._log_recovery()
        return written

    def _one_by_one(self, batch: list[Item], error: Exception) -> int:
        """One bad item must not hold up the others."""
        written = 0
        for item in batch:
            try:
                self._write([item])
                written += 1
            except DatabaseError as own:
                self.dropped += 1
                error = own
        log.error("%s: %d refused by the database: %s", self._what, len(batch) - written, error)
        return written

    def _log_failure(self, error: Exception) -> None:
        if not self.trouble:
            log.error("%s: not written, kept for another try: %s", self._what, error)
        self.trouble = str(error)

    def _log_recovery(self) -> None:
        if self.trouble:
            log.warning("%s: written again", self._what)
        self.trouble = ""
