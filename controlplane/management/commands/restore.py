"""`manage.py restore FILE`: put a backup in the place of what is stored. Refused while a server runs."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import archive, data_dir
from optimizer.core.errors import NarrowgaugeError


class Command(BaseCommand):
    help = "Put the backup in FILE in the place of what is stored, which is kept aside. Stop the server first."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="what `manage.py backup` wrote")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
            aside = archive.restore(file)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Restored from {file}.")
        if aside.exists():
            self.stdout.write(f"To undo it: manage.py restore {aside}")
