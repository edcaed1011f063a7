"""Work that a process repeats while it lives: tables read again, records written, the picture published.

Rule: nothing that goes wrong ends a loop. What fails the same way again and again is said once, and once more when it
works again. Must not know: what the work is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from django.db import DatabaseError

from optimizer.core.errors import NarrowgaugeError

log = logging.getLogger("narrowgauge.loops")


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Repeat `work`, with a pause of `seconds` before each time; until cancelled."""
    said = ""
    while True:
        await asyncio.sleep(seconds)
        trouble, bug = "", None
        try:
            await work()
        except DatabaseError as error:
            trouble = f"the database does not answer: {error}"
        except NarrowgaugeError as error:
            trouble = str(error)
        except Exception as error:
            trouble, bug = repr(error), error
        if trouble and trouble != said:
            log.error("%s is not done, tried again every %g s: %s", _name(work), seconds, trouble, exc_info=bug)
        elif said and not trouble:
            log.info("%s works again", _name(work))
        said = trouble


def _name(work: Callable[[], Awaitable[None]]) -> str:
    return getattr(work, "__qualname__", repr(work))
