"""`manage.py replay FILE --set name=value`: what a change of thresholds would have meant for recorded traffic.

Rule: thin: a file and settings in, table, JSON or HTML out. Compares the setting in force here with the changed one,
on the speeds measured here. Must not know: how traffic is replayed.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from controlplane import data_dir, database, recording
from controlplane.management.commands.simulate import LONGEST_FILE_BYTES, PROGRESS_AFTER_S
from controlplane.management.examples import CommandWithExamples
from controlplane.own_process import LOW_PRIORITY
from optimizer.core.errors import ConfigurationError
from optimizer.core.tiers import Catalogue
from optimizer.simulation import compared, report, table
from optimizer.simulation.compared import Compared
from optimizer.simulation.replay import PIECES, comparison, parts_of
from optimizer.simulation.workload import from_jsonl

EXAMPLES = """examples:
  manage.py record --hours 8 --out traffic.jsonl
  manage.py replay traffic.jsonl --set stay=30
  manage.py replay traffic.jsonl --set order=shortest --set urgent=2 --html compared.html
"""


class Command(CommandWithExamples):
    help = "Replay recorded traffic under the thresholds in force and under changed ones, on this machine's speeds."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("file", type=Path, metavar="FILE", help="recorded traffic, from manage.py record")
        add("--set", action="append", default=[], required=True, metavar="NAME=VALUE", help="a changed threshold")
        add("--pieces", type=int, default=PIECES, help=f"equal spans compared one by one (default: {PIECES})")
        add("--json", action="store_true", help="JSON instead of the table")
        add("--html", type=Path, metavar="OUT", help="write a page with pictures")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        os.nice(LOW_PRIORITY)
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            found, catalogue = self._compared(options)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        tables = comparison(found.before, found.after)
        change = ", ".join(f"{name}={value}" for name, value in found.change.items())
        said = f"{change}: {compared.sentence(found.verdict)}"
        if options["html"]:
            try:
                options["html"].write_text(report.html(tables, said), encoding="utf-8")
            except OSError as error:
                raise CommandError(f"cannot write {options['html']}: {error.strerror}") from error
        if options["json"]:
            self.stdout.write(json.dumps({**compared.data(found, catalogue), **table.data(tables)}, indent=1))
        else:
            self.stdout.write(f"{said}\n\n{table.text(tables)}")

    def _compared(self, options: dict[str, Any]) -> tuple[Compared, Catalogue]:
        in_force, catalogue = recording.setting()
        change = dict(_setting(text) for text in options["set"])
        idle = compared.cannot_show(change)
        if idle:
            self.stderr.write(f"a replay cannot show the effect of {', '.join(idle)}")
        if not 1 <= options["pieces"] <= 1000:
            raise ConfigurationError("--pieces must be from 1 to 1000")
        parts = parts_of(from_jsonl(_read(options["file"]).splitlines(), catalogue), options["pieces"])
        self._began, self._told, self._done, self._total = time.monotonic(), 0.0, 0, 2 * len(parts)
        return compared.compare(parts, in_force, change, catalogue, self._progress), catalogue

    def _progress(self) -> None:
        """A line now and then on stderr, once it takes long enough for somebody to wonder."""
        self._done += 1
        now = time.monotonic()
        if now - self._began > PROGRESS_AFTER_S and (now - self._told > 1.0 or self._done == self._total):
            self._told = now
            left_s = (now - self._began) / self._done * (self._total - self._done)
            self.stderr.write(f"{self._done} of {self._total} replays, about {left_s:.0f} s to go")


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigurationError(f"--set wants NAME=VALUE, not '{text}'")
    return name.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {LONGEST_FILE_BYTES // 2**20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
