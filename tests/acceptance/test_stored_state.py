"""Stored state over its life, on both databases: migrated forward, backed up, restored, moved to another."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.postgres_server import postgres
from tests.served import ROOT, Served, environment, manage

pytestmark = pytest.mark.slow

COUNT = """
import hashlib, json
from django.apps import apps
for model in apps.get_models(include_auto_created=True):
    rows = sorted(
        json.dumps([v.hex() if isinstance(v, (bytes, memoryview)) else v for v in row], sort_keys=True, default=str)
        for row in model._base_manager.values_list(*[f.attname for f in model._meta.local_concrete_fields])
    )
    print(model._meta.label, len(rows), hashlib.sha256("".join(rows).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def database_url(tmp_path_factory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("pg")) as url:
        yield url


@contextmanager
def on(url: str) -> Iterator[None]:
    """Commands and servers of this block use the database at `url`; "" for SQLite."""
    before = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ["DATABASE_URL"]
        else:
            os.environ["DATABASE_URL"] = before


def new_database(url: str, name: str) -> str:
    """An empty database next to the one at `url`."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


def contents(directory: Path) -> list[str]:
    listed = manage("shell", "--no-imports", "-c", COUNT, "--data-dir", str(directory))
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.splitlines()


def done(*arguments: str | Path, directory: Path) -> str:
    ran = manage(*map(str, arguments), "--data-dir", str(directory))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(*arguments: str | Path, directory: Path) -> str:
    ran = manage(*map(str, arguments), "--data-dir", str(directory))
    assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    return ran.stderr


# --- migrations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_rows_of_the_first_version_survive_every_migration(where, tmp_path, database_url):
    url = new_database(database_url, "old") if where == "postgresql" else ""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.migrate_forward"],
        cwd=ROOT,
        env={**environment(), "DATABASE_URL": url, "NARROWGAUGE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["wrong"] == [] and told["on"] == where and told["rows"] >= 13
    assert len(told["migrations"]) >= 3 and f"applied {len(told['migrations']) - 1} migrations" in told["done"]


# --- backup and restore ------------------------------------------------------------------------------------------


def test_a_backup_is_taken_while_it_serves_and_restored_only_when_it_does_not(tmp_path):
    directory, saved = tmp_path / "data", tmp_path / "saved.sqlite3"
    with Served(directory, "simulated", ("--speed", "50")) as served:
        key = served.key()
        served.post_task(key, "keep this")
        served.wait(lambda: "keep this" in _prompts(directory), 10)
        assert "MB, checked" in done("backup", saved, directory=directory)
        assert "exists already" in refused("backup", saved, directory=directory)
        served.post_task(key, "lose this")
        assert f"process {served.process.pid}" in refused("restore", saved, directory=directory)
    assert saved.stat().st_mode & 0o077 == 0
    assert "lose this" in _prompts(directory)
    said = done("restore", saved, directory=directory)
    assert "keep this" in _prompts(directory) and "lose this" not in _prompts(directory)
    done("restore", said.split("To undo it: manage.py restore ")[1].strip(), directory=directory)
    assert "lose this" in _prompts(directory)


def _prompts(directory: Path) -> str:
    with closing(sqlite3.connect(directory / "narrowgauge.sqlite3")) as opened:
        return str(opened.execute("SELECT prompt_original FROM controlplane_requestrecord").fetchall())


def test_a_backup_moves_from_one_database_to_the_other_and_back_unchanged(tmp_path, database_url):
    small, large = tmp_path / "small", tmp_path / "large"
    with on(""):
        done("agentkey", "mover", "--create", directory=small)
        done("backup", tmp_path / "one.sqlite3", directory=small)
    with on(new_database(database_url, "moved")):
        said = done("restore", tmp_path / "one.sqlite3", directory=large)
        done("agentkey", "later", "--create", directory=large)  # the sequences go on where the rows end
        done("backup", tmp_path / "two.sqlite3", directory=large)
        moved = contents(large)
        assert any(line.startswith("controlplane.Agent 133 ") for line in moved)
        done("restore", said.split("To undo it: manage.py restore ")[1].strip(), directory=large)
        assert any(line.startswith("controlplane.AgentKey 0 ") for line in contents(large)), "as it was before"
    with on(""):
        done("restore", tmp_path / "two.sqlite3", directory=small)
        assert contents(small) == moved


def test_a_backup_of_a_newer_version_is_refused_and_nothing_changes(tmp_path):
    directory, saved = tmp_path / "data", tmp_path / "newer.sqlite3"
    done("agentkey", "tester", "--create", directory=directory)
    done("backup", saved, directory=directory)
    with closing(sqlite3.connect(saved)) as newer:
        newer.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('controlplane', '9999_x', '2030')")
        newer.commit()
    before = (directory / "narrowgauge.sqlite3").read_bytes()
    assert "newer version" in refused("restore", saved, directory=directory)
    assert (directory / "narrowgauge.sqlite3").read_bytes() == before
    assert not list(directory.glob("before-restore*")) and not list(directory.glob(".narrowgauge*"))
