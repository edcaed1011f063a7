"""One process owns a node's slots: a lease on the data directory that a second owner cannot take.

Rule: the operating system holds the lock, so it ends with its process however that ends (kill -9 included).
Must not know: what the owner does with the node.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import TextIO

from optimizer.core.errors import ConfigurationError

LOCK_FILE = "engine.lock"


class NodeLock:
    """Held from construction to `release`, or to the end of the process."""

    def __init__(self, directory: Path, address: str, *, shared: bool = False) -> None:
        """Raises ConfigurationError that names the owner when another process holds it.

        `shared`: with others that share it, who settle between themselves which of them drives the node.
        """
        self._file: TextIO = (directory / LOCK_FILE).open("a+")
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            owner = _owner(self._file)
            self._file.close()
            raise ConfigurationError(
                f"another Narrowgauge already serves this data directory{owner}; stop it, or choose another --data-dir"
            ) from None
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "address": address}, self._file)
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def holder(directory: Path) -> str | None:
    """The address of the process that serves a data directory; None when none does. Takes nothing from anybody."""
    try:
        with (directory / LOCK_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return str(json.load(file)["address"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no such file, or caught in the act of writing
    return None


def _owner(file: TextIO) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        return f" (process {owner['pid']}, {owner['address']})"
    except (ValueError, KeyError, TypeError):
        return ""  # caught in the act of writing
