"""`manage.py advise`: what other hardware would have meant for this installation's traffic.

Rule: thin; low priority, once at a time; the answers are kept for the page of the same name.
"""

import argparse
import json
import os
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import advice, chores, data_dir, database
from controlplane.own_process import LOW_PRIORITY
from optimizer.core.errors import ConfigurationError, NarrowgaugeError
from optimizer.simulation.hardware import USUAL_CPU, CpuSpeed


class Command(BaseCommand):
    help = (
        "Replay recorded traffic (or, while there is too little, the built-in one) on other hardware: more VRAM, more "
        "slots, files in RAM, smaller quantisations, a model on the CPU, another node."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--json", action="store_true", help="JSON instead of text")
        add("--quiet", action="store_true", help="no progress on stderr")
        about = "a model's speed on your CPU, relative to the GPU: reading, writing (default: %(default)s)"
        default = [USUAL_CPU.prefill_share, USUAL_CPU.decode_share]
        add("--cpu", type=float, nargs=2, default=default, metavar=("READ", "WRITE"), help=about)
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not all(0 < share <= 10 for share in options["cpu"]):
            raise CommandError("--cpu are shares above 0, for example 0.06 0.2")
        os.nice(LOW_PRIORITY)
        self._quiet, self._told = options["quiet"], time.monotonic()
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            self._claim = chores.take(advice.CHORE)
            if self._claim is None:
                raise ConfigurationError("advice is being worked out already; wait for its end")
            with chores.held(self._claim):
                found = advice.found(CpuSpeed(*options["cpu"]), self._progress)
                self._claim.end(f"rests on {found['rests_on']}", found)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(found, indent=1) if options["json"] else text(found))

    def _progress(self, done: int, total: int) -> None:
        self._claim.progress(done, total)
        if not self._quiet and time.monotonic() - self._told > 1.0:
            self._told = time.monotonic()
            self.stderr.write(f"{done} of {total} replays")


def text(found: dict[str, Any]) -> str:
    """The answers, best first, each with what it takes for granted."""
    lines = [f"Rests on {found['rests_on']}.", ""]
    for answer in found["answers"]:
        effect = answer["effect"]
        word = "worth it" if answer["worth_it"] else effect["reason"]
        lines.append(f"- {answer['sentence']}")
        span = f"x{effect['low']:.2f} to x{effect['high']:.2f}"
        lines.append(
            f"    latency / target x{effect['ratio']:.2f} (95 %: {span}): {word}; assumed: {answer['assumed']}"
        )
    return "\n".join(lines)
