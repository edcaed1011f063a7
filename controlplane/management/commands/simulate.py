"""`manage.py simulate`: the scheduler against Ollama's queue and other gateways, on a virtual clock.

Rule: thin: options in, table, JSON or HTML out; needs no database and no backend. Must not know: policies.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from controlplane.management.examples import CommandWithExamples
from optimizer.core.errors import ConfigurationError
from optimizer.simulation import report, table
from optimizer.simulation.experiment import CONTENDERS, MOST_NODES, OLLAMA, STEADY, compare, contender, on_nodes
from optimizer.simulation.plan import DEFAULT_LOAD, OVERLOAD, WORKLOADS, Options, plan

EXAMPLES = """examples:
  manage.py simulate                                        131 agents in a closed loop for 4 hours
  manage.py simulate --workload poisson --load 0.8          open arrivals at 80 % of capacity
  manage.py simulate --workload at-once --seeds 20          everybody at once, against the proven bound
  manage.py simulate --workload bursts --vram-mb 8192       the same agents on an 8 GB card
  manage.py simulate --workload traffic.jsonl               recorded traffic, one JSON object a line
  manage.py simulate --nodes 4                              ours on 1, 2 and 4 nodes, the same saturating traffic
  manage.py simulate --set stay=8 --set order=shortest      other thresholds for steady
"""
PROGRESS_AFTER_S = 2.0
LONGEST_FILE_BYTES = 256 * 1024 * 1024


class Command(CommandWithExamples):
    help = "Run scheduling policies side by side on a modelled machine, with a virtual clock. Deterministic by seed."
    examples = EXAMPLES
    requires_system_checks = ()  # no database, no backend

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add(
            "--workload",
            metavar="KIND|FILE",
            help=f"{', '.join(WORKLOADS)}, or a JSONL file (default: closed; with --nodes: saturated)",
        )
        add(
            "--policies",
            default="steady,ollama,fifo,llama-swap",
            metavar="LIST",
            help="of " + "; ".join(f"{c.name}: {c.about}" for c in CONTENDERS.values()),
        )
        add("--nodes", type=int, metavar="N", help="hold steady on 1, 2, 4, ... N nodes against steady on one")
        add("--load", type=float, help=f"share of capacity (poisson, bursts: {DEFAULT_LOAD}; overload: {OVERLOAD})")
        add("--hours", type=float, default=4.0, help="length of the arrivals in virtual hours (default: 4)")
        add("--think", type=float, default=60.0, metavar="S", help="closed loop: mean thinking time (default: 60)")
        add("--seeds", type=int, default=5, help="how many seeds (default: 5)")
        add("--first-seed", type=int, default=1, metavar="SEED", help="the first of them (default: 1)")
        add("--vram-mb", type=int, metavar="MB", help="memory of the card (default: 4096)")
        add("--slots", type=int, help="parallel runs (default: 2)")
        add("--load-time", type=float, default=1.0, metavar="FACTOR", help="times the load times, 0.3 = files in RAM")
        add("--models", type=Path, metavar="FILE", help="JSON list of models to change or add (docs/simulation.md)")
        add("--set", action="append", default=[], metavar="NAME=VALUE", help="a threshold of steady; may be repeated")
        add("--json", action="store_true", help="JSON instead of the table")
        add("--html", type=Path, metavar="OUT", help="write a page with pictures")

    def handle(self, *args: Any, **options: Any) -> None:
        nodes = options["nodes"]
        if nodes is not None and not 1 <= nodes <= MOST_NODES:
            raise CommandError(f"--nodes must be between 1 and {MOST_NODES}")
        if not options["workload"]:
            options["workload"] = "saturated" if nodes else "closed"
        policies = [name.strip() for name in options["policies"].split(",") if name.strip()]
        if nodes:
            policies = [on_nodes(count) for count in _doubling(nodes)]
        if not policies or not 1 <= options["seeds"] <= 10_000:
            raise CommandError("name at least one policy and one seed")
        try:
            for name in policies:
                contender(name)
            chosen = plan(_options(options))
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        self._began, self._told = time.monotonic(), 0.0
        seeds = range(options["first_seed"], options["first_seed"] + options["seeds"])
        comparison = compare(
            list(dict.fromkeys(policies)),
            chosen.workload,
            chosen.machine,
            seeds,
            chosen.thresholds,
            chosen.catalogue,
            self._progress,
            STEADY if nodes else OLLAMA,
        )
        than = "one node" if nodes else "Ollama"
        about = (
            f"{chosen.workload.name}, seeds {seeds[0]} to {seeds[-1]}, {chosen.machine.usable_mb:.0f} MB usable VRAM, "
            f"{chosen.thresholds.slots} slots. Means over the seeds; (x) = times better than {than}."
        )
        if options["html"]:
            try:
                options["html"].write_text(report.html(comparison, about), encoding="utf-8")
            except OSError as error:
                raise CommandError(f"cannot write {options['html']}: {error.strerror}") from error
        if options["json"]:
            self.stdout.write(json.dumps(table.data(comparison), indent=1))
        else:
            self.stdout.write(f"{about}\n\n{table.text(comparison)}")

    def _progress(self, policy: str, done: int, total: int) -> None:
        """A line now and then on stderr, once it takes long enough for somebody to wonder."""
        now = time.monotonic()
        if now - self._began > PROGRESS_AFTER_S and (now - self._told > 1.0 or done == total):
            self._told = now
            left_s = (now - self._began) / done * (total - done)
            self.stderr.write(f"{done} of {total} runs, about {left_s:.0f} s to go ({policy})")


def _doubling(nodes: int) -> list[int]:
    """1, 2, 4, ... and `nodes`."""
    counts = [1]
    while counts[-1] * 2 < nodes:
        counts.append(counts[-1] * 2)
    return counts if nodes == 1 else [*counts, nodes]


def _options(given: dict[str, Any]) -> Options:
    """Options with the files read. Raises ConfigurationError."""
    workload, traffic = given["workload"], None
    if workload not in WORKLOADS:
        if not Path(workload).exists():
            raise ConfigurationError(f"--workload is one of {', '.join(WORKLOADS)}, or a file; {workload} is neither")
        traffic = _read(Path(workload)).splitlines()
    return Options(
        workload=workload,
        traffic=traffic,
        load=given["load"],
        hours=given["hours"],
        think_s=given["think"],
        vram_mb=given["vram_mb"],
        slots=given["slots"],
        load_scale=given["load_time"],
        models=_models(given["models"]),
        thresholds=dict(_setting(text) for text in given["set"]),
    )


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigurationError(f"--set wants NAME=VALUE, not '{text}'")
    return name.strip(), value.strip()


def _models(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    try:
        rows = json.loads(_read(path))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"{path} must hold a JSON list of objects")
    return rows


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {LONGEST_FILE_BYTES // 2**20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
