#!/usr/bin/env python
"""Django's command line; `manage.py up` serves, `manage.py --help` lists the rest."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    from controlplane import data_dir

    # Before the settings are read: they name the database file in it.
    execute_from_command_line(data_dir.taken_from(sys.argv))


if __name__ == "__main__":
    main()
