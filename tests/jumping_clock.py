"""`manage.py` under a wall clock that a test moves: `python -m tests.jumping_clock FILE COMMAND ...`.

FILE holds the seconds to add to the real time. History is cleaned every half second instead of every hour, so that a
clock that is wrong would show at once.
"""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

_real = time.time
_file = Path(sys.argv[1])


def _jumping() -> float:
    try:
        return _real() + float(_file.read_text() or 0)
    except FileNotFoundError:
        return _real()


def main() -> None:
    time.time = _jumping
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django
    from django.core.management import execute_from_command_line
    from django.utils import timezone

    from controlplane import data_dir

    timezone.now = lambda: datetime.fromtimestamp(_jumping(), UTC)
    arguments = data_dir.taken_from(["manage.py", *sys.argv[2:]])
    django.setup()
    from controlplane import service

    service.CLEAN_EVERY_S = 0.5
    execute_from_command_line(arguments)


if __name__ == "__main__":
    main()
