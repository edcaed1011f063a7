"""`manage.py tune`: one cycle of the adaptive optimiser, in a process of its own at low priority.

Rule: thin. The engine runs it every `tuning_cycle_s`; a person may run it at any time.
"""

import argparse
import dataclasses
import json
import os
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import chores, data_dir, database, rota, thresholds, tuning_cycle
from controlplane.own_process import LOW_PRIORITY
from optimizer.core.errors import ConfigurationError, NarrowgaugeError


class Command(BaseCommand):
    help = "Replay the last 8 hours under changed thresholds and propose (mode 'auto': apply) what proves better."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="JSON instead of text")
        parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
        parser.add_argument("--due", action="store_true", help="do nothing unless a cycle is due by tuning_cycle_s")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        os.nice(LOW_PRIORITY)
        self._quiet, self._told = options["quiet"], time.monotonic()
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            every_s = thresholds.current().tuning_cycle_s if options["due"] else 0.0
            self._claim = chores.take(rota.TUNE, every_s)
            if self._claim is None:
                if options["due"]:
                    return
                raise ConfigurationError("a tuning cycle is running already; wait for its end")
            with chores.held(self._claim):
                cycle = tuning_cycle.run(progress=self._progress)
                self._claim.end(cycle.said)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(_data(cycle), indent=1))
            return
        for line in (*cycle.effects, cycle.said):
            self.stdout.write(line)
        for trial in cycle.search.trials if cycle.search else ():
            verdict = trial.verdict
            word = "accepted" if verdict.accepted else verdict.reason
            self.stdout.write(f"  {trial.candidate.name}: x{verdict.ratio:.3f}, {word}")

    def _progress(self, done: int, total: int) -> None:
        self._claim.progress(done, total)
        if not self._quiet and time.monotonic() - self._told > 1.0:
            self._told = time.monotonic()
            self.stderr.write(f"{done} of {total} settings replayed")


def _data(cycle: tuning_cycle.Cycle) -> dict[str, Any]:
    trials = cycle.search.trials if cycle.search else ()
    return {
        "mode": cycle.mode,
        "said": cycle.said,
        "effects": list(cycle.effects),
        "suggestion": cycle.suggestion,
        "trials": [{"change": dict(t.candidate.change), **dataclasses.asdict(t.verdict)} for t in trials],
    }
