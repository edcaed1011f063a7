"""Bringing a database up to date: once, however many processes ask at once; logs that stay one line."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from django.conf import settings
from django.db import connection, connections

from controlplane import data_dir, database, stores
from controlplane.logs import LineFormatter
from controlplane.models import Agent, Tier
from controlplane.stores.buffer import BATCH
from tests.controlplane.test_stores import RECORD


@pytest.mark.django_db
def test_a_migrated_database_is_seeded_once():
    assert database.bring_up_to_date() == [
        "seeded tiers",
        "seeded strategy-models",
        "seeded embedded-models",
        "seeded agents",
        "seeded roles",
        "seeded task-roles",
    ]
    assert database.bring_up_to_date() == []
    assert Agent.objects.count() == 131


@pytest.mark.django_db(transaction=True)
async def test_a_thread_of_ours_keeps_its_connection():
    closed = []

    def use() -> None:
        connection.ensure_connection()
        connections["default"].close = lambda: closed.append(threading.current_thread().name)

    with ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            await database.in_thread(threads, use)
        assert closed == []
        await database.in_thread(threads, lambda: delattr(connections["default"], "close"))
        await database.in_thread(threads, connections.close_all)


@pytest.mark.slow
def test_two_processes_may_start_on_one_fresh_directory(tmp_path):
    environment = {**os.environ, data_dir.ENV: str(tmp_path / "data"), "DATABASE_URL": ""}
    command = [sys.executable, str(data_dir.PROJECT_ROOT / "manage.py"), "agentkey", "debugger"]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert [error for _, error in ended] == ["", ""]
    assert len({token for token, _ in ended}) == 2


def test_a_line_feed_cannot_forge_a_log_record():
    record = logging.makeLogRecord({"msg": "name\n2026 ERROR forged", "levelname": "INFO", "name": "n"})
    assert LineFormatter().format(record).count("\n") == 0


@pytest.mark.django_db
def test_sqlite_lets_readers_and_the_writer_pass_and_makes_writers_wait():
    if connection.vendor != "sqlite":
        return  # Postgres does so by itself
    with connection.cursor() as cursor:
        pragmas = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "busy_timeout")}
    assert pragmas == {"journal_mode": "wal", "busy_timeout": settings.SQLITE_TIMEOUT_S * 1000}


@pytest.mark.django_db(transaction=True)
def test_a_writer_waits_for_another_one_and_readers_for_nobody():
    if connection.vendor != "sqlite":
        return
    agent = Agent.objects.create(slug="waiting", name="Waiting", tier=_tier())
    with closing(sqlite3.connect(connection.settings_dict["NAME"], check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert Agent.objects.get(slug="waiting").pk == agent.pk  # at once: the lock is held
        threading.Timer(0.3, other.rollback).start()
        agent.name = "Written"
        agent.save()
        assert time.monotonic() - began >= 0.3
    assert Agent.objects.get(slug="waiting").name == "Written"


def _tier() -> Tier:
    fields = {"name": "Sonnet", "rank": 1, "purpose": "x", "compression": "moderate", "target_s": 5.0}
    return Tier.objects.get_or_create(slug="sonnet", defaults=fields)[0]


@pytest.mark.django_db
def test_many_records_are_one_transaction_of_few_statements(django_assert_max_num_queries):
    buffer = stores.RecordBuffer()
    for number in range(BATCH):
        buffer.save(replace(RECORD, id=f"r{number}"))
    with django_assert_max_num_queries(30):
        assert buffer.flush() == BATCH
