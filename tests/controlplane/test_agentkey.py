"""`manage.py agentkey`: the token alone on stdout, on a fresh data directory too; clear errors."""

import os
import re
import stat
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from controlplane import data_dir
from controlplane.models import Agent, AgentKey
from controlplane.tables import Tables

TOKEN = re.compile(r"ng_[0-9a-f]{8}_[0-9a-f]{64}\n")


def agentkey(*arguments: str) -> str:
    out = StringIO()
    call_command("agentkey", *arguments, stdout=out)
    return out.getvalue()


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of its own, on SQLite whatever the tests run on."""
    environment = {name: value for name, value in os.environ.items() if name not in (data_dir.ENV, "DATABASE_URL")}
    return subprocess.run(
        [sys.executable, str(data_dir.PROJECT_ROOT / "manage.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_a_fresh_data_directory_is_set_up_quietly_and_privately(tmp_path: Path):
    directory = tmp_path / "new" / "data"
    result = manage("agentkey", "python-developer", f"--data-dir={directory}")
    assert (result.returncode, result.stderr) == (0, "")
    assert TOKEN.fullmatch(result.stdout)
    assert stat.S_IMODE((directory / data_dir.DATABASE_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.slow
def test_an_unusable_data_directory_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = manage("agentkey", "python-developer", "--data-dir", str(tmp_path / "file" / "below"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "cannot be made" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_a_clear_error(tmp_path: Path):
    (tmp_path / data_dir.DATABASE_FILE).write_text("this is no database " * 100)
    result = manage("agentkey", "python-developer", "--data-dir", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert "the database cannot be used: file is not a database" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.django_db
def test_an_unknown_agent_is_an_error_with_near_matches(seeded):
    with pytest.raises(CommandError, match=r"no agent 'pyton-developer'\. Did you mean python-developer"):
        agentkey("pyton-developer")
    with pytest.raises(CommandError, match="--create makes it"):
        agentkey("zzzzzz")
    assert not AgentKey.objects.exists()


@pytest.mark.django_db
def test_create_makes_the_agent_once(seeded):
    assert TOKEN.fullmatch(agentkey("my-scout", "--create", "--tier", "opus"))
    assert TOKEN.fullmatch(agentkey("my-scout", "--create", "--name", "ci"))
    assert (Agent.objects.get(slug="my-scout").tier_id, Agent.objects.get(slug="my-scout").name) == ("opus", "My Scout")
    assert AgentKey.objects.count() == 2


@pytest.mark.django_db
def test_scopes_and_expiry_are_kept(seeded):
    agentkey("debugger", "--scope", "admin", "--scope", "requests", "--days", "2")
    key = AgentKey.objects.get()
    assert key.scopes == ["admin", "requests"]
    assert key.expires_at is not None


@pytest.mark.django_db
def test_what_cannot_be_an_agent_is_refused(seeded):
    with pytest.raises(CommandError, match="cannot be an agent"):
        agentkey("not a slug", "--create")
    with pytest.raises(CommandError, match="--days"):
        agentkey("debugger", "--days", "0")


@pytest.mark.django_db
def test_another_data_directory_than_the_settings_use_is_refused(seeded, tmp_path):
    with pytest.raises(CommandError, match="too late"):
        agentkey("debugger", "--data-dir", str(tmp_path))


@pytest.mark.django_db
def test_a_key_is_rotated_with_an_overlap(agent):
    old = agentkey(agent.slug).strip()
    prefix = old.split("_")[1]
    new = agentkey(agent.slug, "--rotate", prefix, "--overlap-hours", "2").strip()
    live, now = Tables.load("simulated"), time.time()
    assert live.key_for(old, now + 7190) and live.key_for(new, now)
    assert live.key_for(old, now + 7210) is None
    for arguments in (("--rotate", "none"), ("--rotate", prefix, "--overlap-hours", "-1")):
        with pytest.raises(CommandError):
            agentkey(agent.slug, *arguments)
