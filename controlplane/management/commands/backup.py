"""`manage.py backup FILE`: the whole stored state in one file, also while everything runs."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import archive, data_dir
from optimizer.core.errors import NarrowgaugeError


class Command(BaseCommand):
    help = "Write the whole stored state to FILE (an SQLite file, from Postgres too). May be done while it serves."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="must not exist yet")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
            size = archive.save(file)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Saved to {file}: {size / 1e6:.1f} MB, checked. It holds prompts: keep it as you keep them.")
