"""Looks everything over that an installation needs, and says how to mend what is wrong. Changes nothing.

Rule: one function per subject, each a handful of findings; a subject that breaks is itself a finding. What the system
checks know already is asked of them.
Must not know: how findings are shown.
"""

import email.utils
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane import backends, data_dir, node_lock, queries
from optimizer import discovery, model_files
from optimizer.backends.llamacpp_models import EMBEDDED_FILES
from optimizer.core.errors import ConfigurationError

TIMEOUT_S = 3.0
MB = 1 << 20
LITTLE_MB, MUCH_TOO_LITTLE_MB = 1024, 100
SKEW_S = 5.0  # between our clock and another's


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    subject: str
    message: str
    mend: str = ""  # what to do, where it is not OK


@dataclass(frozen=True, slots=True)
class Setup:
    """What `up` would be told."""

    backend: str
    ollama_url: str  # several are separated by commas
    models_dir: Path


def examine(setup: Setup) -> list[Finding]:
    """Every finding, in the order to mend them in."""
    found: list[Finding] = []
    for name, subject in (
        ("settings", _settings),
        ("disk", _disk),
        ("database", _database),
        ("redis", _redis),
        ("clock", _clock),
        ("server", _server),
        ("backend", lambda: _backend(setup)),
        ("keys", _keys),
    ):
        found += _looked_at(name, subject)
    return found


def _looked_at(name: str, subject: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(subject())
    except DatabaseError as error:
        return [Finding(Level.FAIL, name, f"the database does not answer: {error}", _MEND_DATABASE)]


_MEND_DATABASE = "Start the database, or correct DATABASE_URL; `manage.py restore FILE` puts a backup in its place."
_NOT_YET = "nothing is stored yet; the first `manage.py up` or `agentkey` sets it up"


def _settings() -> Iterator[Finding]:
    """Directory, permissions, environment: what `manage.py check` says."""
    messages = checks.run_checks(include_deployment_checks=bool(settings.SECURE_PROXY_SSL_HEADER))
    for message in messages:
        if not message.is_silenced():
            level = Level.FAIL if message.level >= checks.ERROR else Level.WARN
            yield Finding(level, "settings", message.msg, message.hint or f"See {message.id}.")
    if not messages:
        yield Finding(Level.OK, "settings", f"data directory {data_dir.path()}: usable and private")


def _disk() -> Iterator[Finding]:
    nearest = next(place for place in (data_dir.path(), *data_dir.path().parents) if place.exists())
    free_mb = shutil.disk_usage(nearest).free / MB
    message = f"{free_mb:,.0f} MB free at {nearest}"
    mend = "Free some space, or move the data directory; `record_retention_days` says how long requests are kept."
    level = Level.FAIL if free_mb < MUCH_TOO_LITTLE_MB else Level.WARN if free_mb < LITTLE_MB else Level.OK
    yield Finding(level, "disk", message, "" if level is Level.OK else mend)


def _exists() -> bool:
    """Whether there is a database to ask; asking SQLite would make one."""
    return connection.vendor != "sqlite" or os.path.exists(connection.settings_dict["NAME"])


def _database() -> Iterator[Finding]:
    if not _exists():
        yield Finding(Level.WARN, "database", _NOT_YET, "manage.py up")
        return
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            try:
                cursor.execute("PRAGMA quick_check(1)")
                state = cursor.fetchone()[0]
            except (DatabaseError, sqlite3.Error) as error:
                state = str(error)
            if state != "ok":
                yield Finding(Level.FAIL, "database", f"the file is damaged: {state}", _MEND_DATABASE)
                return
            cursor.execute("PRAGMA journal_mode")
            size_mb = os.path.getsize(connection.settings_dict["NAME"]) / MB
            what = f"SQLite {sqlite3.sqlite_version}, {cursor.fetchone()[0].upper()} mode, {size_mb:.1f} MB, sound"
        else:
            cursor.execute("SELECT pg_database_size(current_database())")
            size_mb = cursor.fetchone()[0] / MB
            what = f"{connection.vendor} {connection.pg_version // 10_000}, {size_mb:.1f} MB"  # type: ignore[attr-defined]
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        mend = "Stop every process of ours; the next `manage.py up` (or `manage.py migrate`) does it."
        yield Finding(Level.WARN, "database", f"{what}; {len(plan)} migrations are still to be applied", mend)
    else:
        yield Finding(Level.OK, "database", f"{what}, up to date")


def _redis() -> Iterator[Finding]:
    if not settings.REDIS_URL:
        yield Finding(Level.OK, "redis", "not used: one process does everything")
        return
    import redis

    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        ) as one:
            one.ping()
            seconds, _ = one.time()
    except (redis.RedisError, ValueError, OSError) as error:
        yield Finding(Level.FAIL, "redis", f"no answer: {error}", "Start Redis, or correct REDIS_URL.")
        return
    yield Finding(Level.OK, "redis", "answers")
    yield from _skew("Redis", float(seconds))


def _clock() -> Iterator[Finding]:
    """A clock that is wrong lets keys expire early or late and deletes history too soon."""
    now = time.time()
    wrong = "Set the clock, and let NTP keep it: keys, retention and the cache go by it."
    if not _exists():
        yield Finding(Level.OK, "clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))
        return
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            yield from _skew("the database", float(cursor.fetchone()[0]))
    latest = queries.latest_moment()
    if latest is not None and latest > now + SKEW_S:
        ahead = f"requests are recorded {(latest - now) / 60:.0f} minutes in the future"
        yield Finding(Level.FAIL, "clock", f"the clock was set back, or was wrong before: {ahead}", wrong)
    else:
        yield Finding(
            Level.OK, "clock", time.strftime("%Y-%m-%d %H:%M:%S UTC, after all that is stored", time.gmtime(now))
        )


def _skew(whose: str, theirs: float) -> Iterator[Finding]:
    skew_s = time.time() - theirs
    if abs(skew_s) > SKEW_S:
        mend = "Let NTP keep both clocks: keys, leases and retention go by them."
        way = "ahead of" if skew_s > 0 else "behind"
        yield Finding(Level.WARN, "clock", f"ours is {abs(skew_s):.0f} s {way} the clock of {whose}", mend)


def _server() -> Iterator[Finding]:
    """Whether one runs on this data directory, and what it says of itself."""
    address = node_lock.holder(data_dir.path())
    if address is None:
        yield Finding(Level.OK, "server", "none runs on this data directory")
        return
    mend = "See its log: it says what it waits for."
    try:
        health = httpx.get(f"{address}/healthz", timeout=TIMEOUT_S, trust_env=False)
        said = health.json()
    except (httpx.HTTPError, ValueError) as error:
        yield Finding(Level.FAIL, "server", f"{address} does not answer: {error}", f"{mend} Then start it anew.")
        return
    if health.status_code == httpx.codes.OK:
        yield Finding(Level.OK, "server", f"{address} is ready, with {said['backend']}")
    else:
        yield Finding(Level.FAIL, "server", f"{address} can serve no model: {said.get('reason', '?')}", mend)


def _backend(setup: Setup) -> Iterator[Finding]:
    urls = [url.strip().rstrip("/") for url in setup.ollama_url.split(",") if url.strip()]
    wanted = setup.backend in ("auto", "ollama")
    try:
        answering = [url for url in urls if wanted and backends.ollama_answers(url)]
    except ConfigurationError as error:
        yield Finding(Level.FAIL, "backend", str(error), "Correct --ollama-url.")
        return
    if answering or setup.backend == "ollama":
        mend = "Start it (`ollama serve`), or give its address with --ollama-url."
        for url in urls:
            if url in answering:
                yield from _ollama(url)
            else:
                yield Finding(Level.FAIL, "backend", f"no Ollama answers at {url}", mend)
    elif setup.backend == "simulated":
        yield Finding(Level.WARN, "backend", "the simulated card generates nothing real", "Choose another --backend.")
    else:
        missing = model_files.missing(EMBEDDED_FILES, setup.models_dir)
        if missing:
            names = ", ".join(file.name for file in missing)
            yield Finding(Level.FAIL, "backend", f"the embedded engine lacks {names}", "manage.py pull")
        else:
            yield Finding(Level.OK, "backend", f"embedded engine, model files in {setup.models_dir}")


def _ollama(url: str) -> Iterator[Finding]:
    try:
        answer = httpx.get(f"{url}/api/tags", timeout=TIMEOUT_S, trust_env=False)
        installed = {discovery.canonical(model["name"]) for model in answer.json()["models"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        yield Finding(Level.FAIL, "backend", f"Ollama at {url} does not list its models: {error}", "Restart Ollama.")
        return
    yield Finding(Level.OK, "backend", f"Ollama at {url}, {len(installed)} models")
    date = email.utils.parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
    if date is not None:
        yield from _skew("Ollama's machine", date.timestamp())
    declared = {model.name: model for model in queries.models_of("ollama")} if _exists() else {}
    for name, model in declared.items():
        if discovery.canonical(name) not in installed:
            level = Level.FAIL if model.is_tier_default else Level.WARN
            yield Finding(level, "backend", f"{name} is not installed", f"ollama pull {name}")


def _keys() -> Iterator[Finding]:
    if not _exists():
        return
    now = time.time()
    live = [key for key in queries.live_keys() if key.expires_at is None or key.expires_at.timestamp() > now]
    agents = {key.agent_id for key in live}
    if live:
        yield Finding(Level.OK, "keys", f"{len(live)} live keys of {len(agents)} agents")
    else:
        yield Finding(Level.WARN, "keys", "no agent has a live key", "manage.py agentkey SLUG")
