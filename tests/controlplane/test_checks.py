"""System checks: silent on a sound installation, with an id and a hint otherwise."""

import os
import subprocess
import sys

import pytest
from django.core.checks import run_checks

from controlplane import checks, data_dir
from controlplane.models import LanguageModel


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv(data_dir.ENV, str(tmp_path / "data"))
    return tmp_path / "data"


def ids(messages) -> list[str]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_a_directory_still_to_be_made_is_fine(directory):
    assert checks.data_directory_is_writable() == []
    assert not directory.exists()


def test_a_file_in_the_way_is_an_error(directory):
    directory.write_text("")
    assert ids(checks.data_directory_is_writable()) == ["narrowgauge.E001"]


def test_a_secret_key_that_others_can_read_is_a_warning(directory):
    data_dir.secret_key()
    assert checks.private_files_are_private() == []
    (directory / data_dir.SECRET_KEY_FILE).chmod(0o644)
    assert checks.private_files_are_private() == []  # the directory keeps others out
    directory.chmod(0o755)
    assert ids(checks.private_files_are_private()) == ["narrowgauge.W001"]


def test_debug_in_public_is_a_warning(settings):
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["localhost"]
    assert checks.debug_is_off_in_public() == []
    settings.ALLOWED_HOSTS = ["localhost", "gpu.example"]
    assert ids(checks.debug_is_off_in_public()) == ["narrowgauge.W002"]


def test_redis_with_sqlite_is_a_warning(settings, monkeypatch):
    monkeypatch.setattr(checks.connection, "vendor", "sqlite", raising=False)
    assert checks.several_processes_have_a_server_database() == []
    settings.REDIS_URL = "redis://localhost"
    assert ids(checks.several_processes_have_a_server_database()) == ["narrowgauge.W003"]


@pytest.mark.django_db
def test_a_tier_without_a_model_is_an_error(seeded):
    assert checks.every_tier_is_served(databases=["default"]) == []
    LanguageModel.objects.filter(name="tinyllama").update(enabled=False)
    messages = checks.every_tier_is_served(databases=["default"])
    assert ids(messages) == ["narrowgauge.E002"]
    assert "default tier on ollama" in messages[0].msg


@pytest.mark.django_db
def test_the_checks_are_registered(seeded):
    LanguageModel.objects.filter(name="tinyllama").update(enabled=False)
    assert "narrowgauge.E002" in {message.id for message in run_checks(tags=["database"], databases=["default"])}


@pytest.mark.slow
def test_behind_tls_djangos_deployment_checks_have_nothing_to_say(tmp_path):
    environment = {**os.environ, data_dir.ENV: str(tmp_path), "NARROWGAUGE_HTTPS": "1"}
    environment["NARROWGAUGE_ALLOWED_HOSTS"] = "gpu.example"
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    checked = subprocess.run(command, cwd=data_dir.PROJECT_ROOT, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "1 silenced" in checked.stdout, "preloading, and nothing else"
    without = {**environment, "NARROWGAUGE_HTTPS": ""}
    unready = subprocess.run(command, cwd=data_dir.PROJECT_ROOT, env=without, capture_output=True, text=True)
    assert unready.returncode == 1 and "security.W008" in unready.stderr, "the checks do look"
