"""The database of a process: brought up to date when it starts, then used on threads of its own.

Rule: what is new is migrated, what was never seeded is seeded, and any number of processes may do this at once. A
file lock lines up those of one data directory, a lock of Postgres' own those on several machines.
Must not know: what the tables hold.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import DatabaseError, close_old_connections, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane import data_dir, seed
from optimizer.core.errors import ConfigurationError

_LOCK_FILE = "migrate.lock"
_LOCK_NUMBER = 0x6E67  # "ng": any number, the same in every process


def bring_up_to_date() -> list[str]:
    """Migrate and seed; returns what was done, in words, and [] when nothing was needed.

    Raises ConfigurationError when the data directory or the database cannot be used.
    """
    try:
        with _alone():
            return _migrate() + [f"seeded {name}" for name in seed.seed()]
    except (DatabaseError, OSError) as error:
        raise ConfigurationError(f"the database cannot be used: {error}") from error


def _migrate() -> list[str]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return []
    call_command("migrate", interactive=False, verbosity=0)
    return [f"applied {len(plan)} migrations"]


@contextmanager
def _alone() -> Iterator[None]:
    with (data_dir.prepare() / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connection.vendor == "sqlite":
            _keep_private()
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK_NUMBER])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK_NUMBER])


def _keep_private() -> None:
    """Prompts are in it: the owner alone may read a database file that is made now (SQLite's side files follow it)."""
    name = str(connection.settings_dict["NAME"])
    if os.path.isabs(name):  # not a database in memory
        os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))


async def in_thread(threads: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any) -> Any:
    """Run ORM work on one of `threads` and return its result.

    They live as long as the process, so each keeps its connection: a new one for every look costs more than the look.
    """

    def on_a_live_connection() -> Any:
        connection.close_at = None
        close_old_connections()  # one that the server has dropped would fail for ever (CONN_HEALTH_CHECKS)
        return work(*arguments)

    return await asyncio.get_running_loop().run_in_executor(threads, on_a_live_connection)
