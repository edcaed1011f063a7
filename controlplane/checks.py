"""System checks: what an operator should know before serving, each with an id and a hint.

    narrowgauge.E001  the data directory cannot be written
    narrowgauge.E002  a tier has no model on some backend (only with `manage.py check --database default`)
    narrowgauge.W001  others on this machine can read the secret key or the database
    narrowgauge.W002  DEBUG is on while strangers can reach the pages
    narrowgauge.W003  Redis is set, so several processes may run, but the database is SQLite

Rule: a check looks, it changes nothing; `manage.py check` on a fresh clone finds nothing to say.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection

from controlplane import data_dir

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@register
def data_directory_is_writable(**_: Any) -> list[CheckMessage]:
    """E001, on the directory or on the nearest one above it that exists."""
    directory = data_dir.path()
    nearest = next(place for place in (directory, *directory.parents) if place.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return []
    hint = f"Make it writable, or choose another with --data-dir or {data_dir.ENV}."
    return [Error(f"The data directory {directory} cannot be written.", hint=hint, id="narrowgauge.E001")]


@register(Tags.security)
def private_files_are_private(**_: Any) -> list[CheckMessage]:
    """W001, for files that exist already, in a directory that lets others in."""
    directory = data_dir.path()
    exposed = [
        file
        for file in (directory / data_dir.SECRET_KEY_FILE, directory / data_dir.DATABASE_FILE)
        if _open_to_others(file)
    ]
    if not exposed or not _open_to_others(directory):
        return []
    names = " and ".join(file.name for file in exposed)
    hint = f"chmod 600 {' '.join(map(str, exposed))}"
    return [Warning(f"Others on this machine can read {names}.", hint=hint, id="narrowgauge.W001")]


@register(Tags.security)
def debug_is_off_in_public(**_: Any) -> list[CheckMessage]:
    """W002."""
    strangers = set(settings.ALLOWED_HOSTS) - LOCAL_HOSTS - {"testserver"}
    if not settings.DEBUG or not strangers:
        return []
    message = f"DEBUG is on and the pages answer to {', '.join(sorted(strangers))}."
    return [Warning(message, hint="Unset NARROWGAUGE_DEBUG.", id="narrowgauge.W002")]


@register
def several_processes_have_a_server_database(**_: Any) -> list[CheckMessage]:
    """W003."""
    if not settings.REDIS_URL or connection.vendor != "sqlite":
        return []
    message = "REDIS_URL is set, but the database is SQLite: only processes on this machine can share it."
    return [Warning(message, hint="Set DATABASE_URL to a Postgres database.", id="narrowgauge.W003")]


@register(Tags.database)
def every_tier_is_served(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E002, once the tables exist and tiers are seeded."""
    from controlplane.models import LanguageModel, Tier

    if not databases or Tier._meta.db_table not in connection.introspection.table_names():
        return []
    served = set(
        LanguageModel.objects.filter(is_tier_default=True, enabled=True).values_list("backend", "tier_id"),
    )
    backends = set(LanguageModel.objects.values_list("backend", flat=True))
    missing = sorted({(backend, tier.slug) for backend in backends for tier in Tier.objects.all()} - served)
    hint = "Mark a model as 'serves its tier' in the admin."
    return [
        Error(f"No model serves the {tier} tier on {backend}.", hint=hint, id="narrowgauge.E002")
        for backend, tier in missing
    ]


def _open_to_others(place: Path) -> bool:
    return place.exists() and bool(stat.S_IMODE(place.stat().st_mode) & _OTHERS)
