"""A management command in a process of its own, on this installation's data: for work that must not slow the engine.

Rule: such a command lowers its own priority (`LOW_PRIORITY`), so it takes what the engine leaves.
Must not know: what the commands do, or who waits for them.
"""

import os
import sys

from controlplane import data_dir

LOW_PRIORITY = 15  # niceness


def own_process(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of `manage.py ARGUMENTS`."""
    command = [sys.executable, str(data_dir.PROJECT_ROOT / "manage.py"), *arguments]
    return command, {**os.environ, data_dir.ENV: str(data_dir.path())}
