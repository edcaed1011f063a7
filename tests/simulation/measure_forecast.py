"""How right are the predicted waits? `python -m tests.simulation.measure_forecast --workload poisson --load 0.8`.

Rule: the production scheduler on the simulation's virtual clock; for every request that had to wait a second or more,
what `position` said when it arrived against when it started. Ratios are actual / predicted.
"""

import argparse
import statistics
from collections import defaultdict
from typing import Any

from optimizer.core.commands import Command, StartGeneration
from optimizer.core.events import Event, RequestArrived
from optimizer.core.scheduler import Scheduler
from optimizer.simulation.experiment import Contender, Setting, run
from optimizer.simulation.plan import WORKLOADS, Options, plan

LEAST_S = 1.0  # shorter waits are no waits


class Noted:
    """The scheduler, with what it predicted and what came."""

    def __init__(self, setting: Setting) -> None:
        self._scheduler = Scheduler(setting.thresholds, setting.catalogue)
        self._predicted: dict[str, tuple[str, float, float]] = {}  # job -> model, arrived, predicted wait
        self.waits: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # model -> (predicted, actual)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = self._scheduler.handle(event, now)
        if isinstance(event, RequestArrived):
            _, wait_s, why = self._scheduler.position(event.job.id, now)
            if why != "running":
                self._predicted[event.job.id] = (event.job.model, now, wait_s)
        for command in commands:
            if isinstance(command, StartGeneration) and command.job_id in self._predicted:
                model, arrived, wait_s = self._predicted.pop(command.job_id)
                if now - arrived >= LEAST_S:
                    self.waits[model].append((wait_s, now - arrived))
        return commands


def main(workload: str, load: float, hours: float) -> None:
    chosen = plan(Options(workload=workload, load=load, hours=hours))
    made: list[Noted] = []

    def build(setting: Setting) -> Noted:
        made.append(Noted(setting))
        return made[-1]

    noted = Contender("noted", "the production scheduler", build, coalesces=True, caches=True)
    run(noted, chosen.workload, chosen.machine, 1, chosen.thresholds, chosen.catalogue)
    for model, waits in sorted(made[0].waits.items()):
        ratios = [actual / max(predicted, 0.1) for predicted, actual in waits]
        close = sum(0.5 <= ratio <= 2.0 for ratio in ratios) / len(ratios)
        print(
            f"{model:20} {len(waits):5} waits, mean {statistics.mean(a for _, a in waits):7.1f} s, median ratio "
            f"{statistics.median(ratios):.2f}, within a factor of two {close:.0%}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, default="poisson", help="default: poisson")
    parser.add_argument("--load", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--hours", type=float, default=3.0, help="default: 3")
    options = parser.parse_args()
    main(options.workload, options.load, options.hours)
