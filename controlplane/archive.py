"""Backups: the whole stored state as one SQLite file, whichever database it comes from or goes to.

So one kind of file serves both databases, a backup of one restores into the other (that is how an installation moves to
Postgres), and a backup of an older version is brought up to date on the way in.

Rule: a backup appears whole or not at all, and is taken while everything runs. A restore is refused while anybody uses
the database, and what was there is put aside first: restoring that file undoes it.
Must not know: what the tables mean.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import DatabaseError, connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import Model
from django.utils import timezone

from controlplane import data_dir, database
from controlplane.node_lock import NodeLock
from optimizer.core.errors import ConfigurationError

ALIAS = "archive"  # the file, while Django reads or writes it
BATCH = 500  # rows
SIDE_FILES = ("-wal", "-shm")


def save(file: Path) -> int:
    """Write the state that is stored now to `file`; returns its size in bytes.

    Raises ConfigurationError when the file exists already or cannot be written, or the database cannot be read.
    """
    if file.exists():
        raise ConfigurationError(f"{file} exists already; a backup overwrites nothing")
    with _draft(file) as draft:
        if connection.vendor == "sqlite":
            _copy_file(Path(connection.settings_dict["NAME"]), draft)
        else:
            with _opened(draft):
                call_command("migrate", database=ALIAS, interactive=False, verbosity=0)
                with transaction.atomic():
                    connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    _copy_rows("default", ALIAS)
        check(draft)
        os.link(draft, file)  # refuses, as nothing else does, to overwrite a file that has appeared meanwhile
    return file.stat().st_size


def restore(file: Path) -> Path:
    """Put the state in `file` in the place of what is stored; returns the file that undoes it.

    Raises ConfigurationError when the file is no backup or of a newer version, or somebody uses the database.
    """
    check(file)
    directory = data_dir.prepare()
    lock = NodeLock(directory, "manage.py restore")
    try:
        _refuse_while_used()
        aside = directory / f"before-restore-{timezone.now():%Y%m%d-%H%M%S-%f}.sqlite3"
        with _draft(directory / data_dir.DATABASE_FILE) as draft:
            shutil.copyfile(file, draft)
            with _opened(draft):
                _refuse_newer(file)
                call_command("migrate", database=ALIAS, interactive=False, verbosity=0)
            if connection.vendor == "sqlite":
                connection.close()
                _exchange(draft, Path(connection.settings_dict["NAME"]), aside)
            else:
                database.bring_up_to_date()
                save(aside)
                with _opened(draft):
                    _copy_rows(ALIAS, "default")
        return aside
    finally:
        lock.release()


def check(file: Path) -> None:
    """Raises ConfigurationError unless `file` is a whole SQLite file with our tables in it."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            state = opened.execute("PRAGMA integrity_check").fetchone()[0]
            ours = opened.execute("SELECT count(*) FROM sqlite_master WHERE name = 'controlplane_agent'").fetchone()[0]
    except sqlite3.Error as error:
        raise ConfigurationError(f"{file} is no backup of Narrowgauge: {error}") from error
    if state != "ok" or not ours:
        raise ConfigurationError(f"{file} is no backup of Narrowgauge: {state if state != 'ok' else 'no agents in it'}")


@contextmanager
def _draft(beside: Path) -> Iterator[Path]:
    """A private file next to `beside`, gone at the end whatever happens. Raises ConfigurationError."""
    draft = beside.with_name(f".{beside.name}.{os.getpid()}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        yield draft
    except (OSError, sqlite3.Error, DatabaseError) as error:
        raise ConfigurationError(f"it did not work, and nothing was changed: {error}") from error
    finally:
        for suffix in ("", *SIDE_FILES):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)


@contextmanager
def _opened(file: Path) -> Iterator[None]:
    """The file as Django's database `ALIAS`."""
    own = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}
    connections.settings[ALIAS] = connections.configure_settings({"default": dict(own), ALIAS: own})[ALIAS]
    try:
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS], connections.settings[ALIAS]


def _copy_file(source: Path, target: Path) -> None:
    """SQLite's own copy of a database in use: one moment of it, side files included."""
    if not source.exists():
        raise ConfigurationError(f"there is no database at {source} yet: nothing to back up")
    with closing(sqlite3.connect(source, timeout=20)) as used, closing(sqlite3.connect(target)) as copy:
        used.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, no side files


def _copy_rows(source: str, target: str) -> None:
    """Every row of every table, in the place of what is in `target`. Both have the same tables. In one transaction."""
    models = apps.get_models(include_auto_created=True)
    into = connections[target]
    with transaction.atomic(using=target):
        tables = [model._meta.db_table for model in models]
        for statement in into.ops.sql_flush(no_style(), tables, reset_sequences=False, allow_cascade=False):
            into.cursor().execute(statement)
        for model in models:
            _copy_table(model, source, target)
        for statement in into.ops.sequence_reset_sql(no_style(), models):
            into.cursor().execute(statement)
        into.check_constraints()


def _copy_table(model: type[Model], source: str, target: str) -> None:
    rows: list[Any] = []
    fields = model._meta.local_concrete_fields
    most = min(BATCH, connections[target].ops.bulk_batch_size(fields, range(BATCH)))
    manager = model._base_manager

    def write() -> None:
        # Raw, as fixtures are loaded: dates of making stay, and the change counter is a row like others.
        manager.using(target)._insert(rows, fields=fields, raw=True, using=target)

    for row in manager.using(source).order_by("pk").iterator(chunk_size=BATCH):
        rows.append(row)
        if len(rows) >= most:
            write()
            rows.clear()
    if rows:
        write()


def _exchange(fresh: Path, used: Path, aside: Path) -> None:
    """Put one SQLite file in the place of another, which stays under the name `aside`."""
    if used.exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(used)) as old:  # a broken one stays as it is
            old.execute("PRAGMA journal_mode=DELETE")  # its side files belong to it: fold them in
        for suffix in SIDE_FILES:
            side = used.with_name(used.name + suffix)
            if side.exists():
                side.rename(aside.with_name(aside.name + suffix))
        os.link(used, aside)
    os.replace(fresh, used)


def _refuse_while_used() -> None:
    """Raises ConfigurationError when other programs are connected to a Postgres database."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, coalesce(nullif(application_name, ''), 'a program'), coalesce(host(client_addr), 'here') "
            "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        others = [f"{name} from {place} (pid {pid})" for pid, name, place in cursor.fetchall()]
    if others:
        raise ConfigurationError(f"the database is in use by {', '.join(others[:5])}; stop every process of ours first")


def _refuse_newer(file: Path) -> None:
    loader = MigrationLoader(connections[ALIAS])
    unknown = [f"{app}.{name}" for app, name in loader.applied_migrations if (app, name) not in loader.disk_migrations]
    if unknown:
        raise ConfigurationError(f"{file} was made by a newer version ({', '.join(sorted(unknown))}); update first")
