"""What every test needs: a data directory of its own, and a real database file so that threads can share it."""

import os
import tempfile

import pytest
from hypothesis import settings as hypothesis_settings

_DATA_DIR = tempfile.TemporaryDirectory(prefix="narrowgauge-test-")
os.environ["NARROWGAUGE_DATA_DIR"] = _DATA_DIR.name  # before anything asks for the secret key
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # the servers of the tests are here
# An example that a busy machine holds up for 200 ms is no failure.
hypothesis_settings.register_profile("here", deadline=None)
hypothesis_settings.load_profile("here")


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
