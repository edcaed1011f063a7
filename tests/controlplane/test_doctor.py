"""The doctor finds what is wrong, says how to mend it, and changes nothing."""

import re
import time
from collections import namedtuple
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from controlplane import doctor, keys, node_lock, queries
from controlplane.doctor import Finding, Level, Setup
from controlplane.models import Agent
from controlplane.record_rows import row_of
from tests.controlplane.test_stores import RECORD

pytestmark = pytest.mark.django_db
SIMULATED = Setup("simulated", "http://127.0.0.1:1", Path("/nowhere"))


def found(subject: str, setup: Setup = SIMULATED) -> list[Finding]:
    return [one for one in doctor.examine(setup) if one.subject == subject]


def test_a_sound_installation_has_nothing_that_fails(agent):
    keys.issue(agent)
    everything = doctor.examine(SIMULATED)
    assert {one.subject for one in everything} == {
        "settings", "disk", "database", "redis", "clock", "server", "backend", "keys",
    }  # fmt: skip
    assert [one for one in everything if one.level is Level.FAIL] == []


def test_whatever_is_not_ok_says_how_to_mend_it(seeded, settings, tmp_path):
    settings.REDIS_URL = "redis://127.0.0.1:1"
    for backend in ("ollama", "llamacpp", "simulated"):
        wrong = [one for one in doctor.examine(Setup(backend, "http://127.0.0.1:1", tmp_path)) if one.level != "OK"]
        assert wrong and all(one.mend for one in wrong)


def test_a_full_disk_fails_and_a_nearly_full_one_warns(monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free_mb, level in ((50, Level.FAIL), (500, Level.WARN), (5000, Level.OK)):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, mb=free_mb: usage(0, 0, mb << 20))
        assert [one.level for one in found("disk")] == [level]


def test_a_database_that_does_not_answer_fails_everything_that_needs_it_and_nothing_else(monkeypatch):
    def away(*_: object) -> None:
        raise DatabaseError("connection refused")

    monkeypatch.setattr(doctor, "MigrationExecutor", away)
    [one] = found("database")
    assert one.level is Level.FAIL and "connection refused" in one.message and "restore" in one.mend
    assert found("disk")[0].level is Level.OK


def test_requests_from_the_future_show_that_the_clock_was_set_back(seeded):
    assert found("clock")[-1].level is Level.OK
    row_of(replace(RECORD, arrived_at=time.time() + 7200)).save()
    [one] = [one for one in found("clock") if one.level is Level.FAIL]
    assert "120 minutes in the future" in one.message
    assert queries.latest_moment() > time.time()


def test_another_clock_may_differ_by_a_little():
    assert list(doctor._skew("the database", time.time() - 2)) == []
    [one] = doctor._skew("the database", time.time() + 3600)
    assert one.level is Level.WARN and "behind the clock of the database" in one.message


def test_redis_that_is_asked_for_must_answer(settings):
    assert found("redis")[0].level is Level.OK
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert found("redis")[0].level is Level.FAIL


def ollama_with(monkeypatch, *names: str, date: float | None = None) -> None:
    def get(url: str, **_: object) -> httpx.Response:
        headers = {} if date is None else {"date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(date))}
        body = {"version": "1"} if url.endswith("version") else {"models": [{"name": name} for name in names]}
        return httpx.Response(200, json=body, headers=headers)

    monkeypatch.setattr(httpx, "get", get)


def test_models_that_ollama_lacks_are_named_with_the_command_that_fetches_them(seeded, monkeypatch):
    ollama_with(monkeypatch, "tinyllama:latest", "deepseek-r1:8b")
    wrong = [one for one in found("backend", Setup("auto", "http://ollama", Path())) if one.level is not Level.OK]
    assert [(one.level, one.mend) for one in wrong] == [(Level.FAIL, "ollama pull qwen2.5-coder:7b")]


def test_the_clock_of_ollamas_machine_is_compared(seeded, monkeypatch):
    ollama_with(monkeypatch, "tinyllama:latest", date=time.time() - 600)
    said = [one.message for one in doctor.examine(Setup("ollama", "http://ollama", Path())) if one.subject == "clock"]
    assert any(re.search(r"\b6[01][0-9] s ahead of the clock of Ollama's machine", one) for one in said), said


def test_a_server_that_hangs_is_found_through_its_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("NARROWGAUGE_DATA_DIR", str(tmp_path))
    assert "none runs" in found("server")[0].message
    lock = node_lock.NodeLock(tmp_path, "http://127.0.0.1:1")
    assert found("server")[0].level is Level.FAIL and "127.0.0.1:1 does not answer" in found("server")[0].message
    lock.release()
    assert node_lock.holder(tmp_path) is None
    node_lock.NodeLock(tmp_path, "somebody else").release()  # looking took nothing


def test_without_a_live_key_nobody_can_ask(agent):
    assert found("keys")[0].level is Level.WARN
    keys.issue(agent, expires_at=timezone.now() - timedelta(days=1))
    assert found("keys")[0].level is Level.WARN
    keys.issue(agent)
    assert found("keys")[0].message == "1 live keys of 1 agents"


def test_looking_changes_nothing(agent, django_assert_num_queries):
    before = list(Agent.objects.values())
    with connection.execute_wrapper(_reads_only):
        doctor.examine(SIMULATED)
    assert list(Agent.objects.values()) == before


def _reads_only(execute, sql, params, many, context):
    assert sql.lstrip().upper().startswith(("SELECT", "PRAGMA", "EXPLAIN", "\n")), sql
    return execute(sql, params, many, context)
