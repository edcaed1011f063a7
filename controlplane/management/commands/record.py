"""`manage.py record`: the last hours' traffic as JSON lines, to be replayed here or elsewhere.

Rule: times, sizes, agents and models; no prompt, no answer, no hash of one. Works while `up` is running.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from controlplane import data_dir, database, recording
from controlplane.management.examples import CommandWithExamples
from optimizer.core.errors import ConfigurationError
from optimizer.simulation.recording import lines

EXAMPLES = """examples:
  manage.py record --hours 1 --out hour.jsonl
  manage.py record --hours 24 | gzip > day.jsonl.gz
  manage.py replay hour.jsonl --set stay=30
"""


class Command(CommandWithExamples):
    help = "Write recorded traffic (arrivals and sizes, no text) as JSON lines, for replay and simulate."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--hours", type=float, default=1.0, help="how far back (default: 1)")
        parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: stdout)")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, hours: float, out: Path | None, **options: Any) -> None:
        if not 0 < hours <= 24 * 366:
            raise CommandError("--hours must be above 0 and at most 8784")
        now = time.time()
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            taken = recording.recorded(now - hours * 3600.0, now)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if not taken.arrivals:
            raise CommandError(f"no usable request arrived in the last {hours:g} h")
        text = "\n".join(lines(taken.arrivals)) + "\n"
        if out is None:
            self.stdout.write(text, ending="")
        else:
            try:
                out.write_text(text, encoding="utf-8")
            except OSError as error:
                raise CommandError(f"cannot write {out}: {error.strerror}") from error
        left = f", {taken.left_out} left out (refused, or parts of combined prompts)" if taken.left_out else ""
        self.stderr.write(f"{len(taken.arrivals)} requests recorded{left}")
