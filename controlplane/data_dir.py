"""The data directory: one place for everything this installation keeps (database, secret key, locks).

Rule: where it is, is decided before `django.setup()`, because settings name the database file in it. So
`manage.py` takes `--data-dir` off the command line first of all (`taken_from`). Nothing is created on import:
`prepare` does that, for commands that are about to write.
Must not know: Django, what is stored.
"""

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from optimizer.core.errors import ConfigurationError

ENV = "NARROWGAUGE_DATA_DIR"
PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT = PROJECT_ROOT / "data"
SECRET_KEY_FILE = "secret.key"
DATABASE_FILE = "narrowgauge.sqlite3"


def path() -> Path:
    """The data directory in force, absolute; it may not exist yet."""
    return Path(os.environ.get(ENV) or DEFAULT).expanduser().resolve()


def use(directory: str | os.PathLike[str]) -> Path:
    """Make `directory` the data directory of this process and its children; returns it absolute."""
    os.environ[ENV] = str(Path(directory).expanduser().resolve())
    return path()


def taken_from(argv: Sequence[str]) -> list[str]:
    """Heed `--data-dir DIR` or `--data-dir=DIR` in a command line; returns the line without it.

    Taken out, it works with Django's own commands too (`createsuperuser`, `changepassword`, `shell`).
    """
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "--data-dir":
            value = value if equals else next(arguments, "")
            if value:
                use(value)
                continue
        rest.append(argument)  # a lone --data-dir stays, for the command to complain about
    return rest


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--data-dir` on a command, for its help and for `call_command`."""
    parser.add_argument(
        "--data-dir", metavar="DIR", help=f"where the database and the secret key live (default: ${ENV} or data/)"
    )


def confirm(value: str | None) -> None:
    """Raises ConfigurationError when a command was given a data directory that the settings do not use."""
    if value and Path(value).expanduser().resolve() != path():
        raise ConfigurationError(f"--data-dir {value} came too late: set {ENV} before Django starts")


def prepare() -> Path:
    """Create the directory if need be. Raises ConfigurationError when it cannot be written."""
    directory = path()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"data directory {directory} cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"data directory {directory} is not writable; choose another with --data-dir")
    return directory


def secret_key() -> str:
    """Django's SECRET_KEY: made once, kept in the data directory, readable by its owner only.

    Two processes that start together end up with the same key: the file appears whole or not at all.
    """
    file = prepare() / SECRET_KEY_FILE
    if not file.exists():
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, file)
        except FileExistsError:
            pass  # another process was first: its key counts
        finally:
            draft.unlink()
    return file.read_text().strip()
