"""`manage.py prove_tuning`: does the tuner reach a good setting from a poor one, and do its changes hold?

Rule: thin: options in, table or JSON out; needs no database and no backend. The experiment is
optimizer/simulation/proof.py.
"""

import argparse
import dataclasses
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.own_process import LOW_PRIORITY
from optimizer.simulation.proof import FIXED, Proof, prove

LOADS = (0.6, 0.8, 0.95)


class Command(BaseCommand):
    help = "Tune synthetic traffic from a poor setting with a wrong machine model, and check on fresh hours."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--seeds", type=int, default=4, help="seeds for each load (default: 4)")
        add("--loads", default=",".join(map(str, LOADS)), help="shares of capacity (default: %(default)s)")
        add("--sigma", type=float, default=0.2, help="how far off the machine model is, lognormal (default: 0.2)")
        add("--hour", type=float, default=3600.0, metavar="S", help="length of a recorded piece (default: 3600)")
        add("--workers", type=int, default=1, help="processes (default: 1)")
        add("--json", action="store_true", help="JSON instead of the table")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            loads = [float(load) for load in options["loads"].split(",")]
        except ValueError:
            raise CommandError("--loads are numbers separated by commas") from None
        if not (1 <= options["seeds"] <= 1000 and all(0 < load <= 2 for load in loads) and options["hour"] >= 60):
            raise CommandError("at least one seed, loads above 0 and at most 2, pieces of at least 60 s")
        os.nice(LOW_PRIORITY)
        proofs: list[Proof] = []
        with ProcessPoolExecutor(options["workers"]) as pool:
            runs = [
                pool.submit(prove, seed, load, options["sigma"], options["hour"])
                for load in loads
                for seed in range(1, options["seeds"] + 1)
            ]
            for run in as_completed(runs):
                proofs.append(run.result())
                self.stderr.write(f"{len(proofs)} of {len(runs)} done")
        proofs.sort(key=lambda proof: (proof.load, proof.seed))
        if options["json"]:
            rows = [{**dataclasses.asdict(proof), "over_best": proof.over_best} for proof in proofs]
            self.stdout.write(json.dumps({"proofs": rows, "summary": summary(proofs)}, indent=1))
        else:
            self.stdout.write(text(proofs))


def summary(proofs: list[Proof]) -> dict[str, float]:
    """The figures that issue 6 asks for."""
    accepted = [change for proof in proofs for change in proof.accepted]
    count = max(1, len(accepted))
    return {
        "runs": len(proofs),
        "within_10_percent_of_best_fixed": sum(proof.over_best <= 1.1 for proof in proofs) / len(proofs),
        "mean_over_best_fixed": sum(proof.over_best for proof in proofs) / len(proofs),
        "worst_over_best_fixed": max(proof.over_best for proof in proofs),
        "accepted": len(accepted),
        "accepted_really_better": sum(change.real < 1.0 for change in accepted) / count,
        "mean_promised": sum(change.promised for change in accepted) / count,
        "mean_real": sum(change.real for change in accepted) / count,
        "worst_accepted": max((change.real for change in accepted), default=1.0),
    }


def text(proofs: list[Proof]) -> str:
    """A Markdown table, and the summary below."""
    lines = [
        f"| load | seed | poor | tuned | best of {len(FIXED)} fixed | tuned / best | accepted: promised -> real |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for p in proofs:
        changes = "; ".join(
            f"{name} {value} {a.promised:.2f} -> {a.real:.2f}" for a in p.accepted for name, value in a.change.items()
        )
        figures = " | ".join(f"{value:.2f}" for value in (p.start, p.end, p.best_fixed, p.over_best))
        lines.append(f"| {p.load:g} | {p.seed} | {figures} | {changes} |")
    return "\n".join([*lines, "", *(f"{name}: {value:.3f}" for name, value in summary(proofs).items())])
