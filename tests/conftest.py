"""What every test needs: a data directory of its own, and a real database file so that threads can share it."""

import os
import tempfile

import pytest

_DATA_DIR = tempfile.TemporaryDirectory(prefix="narrowgauge-test-")
os.environ["NARROWGAUGE_DATA_DIR"] = _DATA_DIR.name  # before anything asks for the secret key


def pytest_unconfigure() -> None:
    _DATA_DIR.cleanup()


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Tests use a file, like production: Django's in-memory SQLite would lock whole tables between threads."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        database["TEST"]["NAME"] = os.path.join(_DATA_DIR.name, "test.sqlite3")


@pytest.fixture(scope="session", autouse=True)
def fast_passwords() -> None:
    """A password hash takes a second on purpose; tests make hundreds of users."""
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
