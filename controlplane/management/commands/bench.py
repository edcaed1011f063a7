"""`manage.py bench`: what Narrowgauge costs, as ratios against bare servers measured in the same run.

Rule: thin: options in, table or JSON out. It works on a data directory of its own and leaves nothing behind.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import bench
from optimizer import model_files
from optimizer.backends.llamacpp_models import EMBEDDED_FILES
from optimizer.core.errors import NarrowgaugeError


class Command(BaseCommand):
    help = "Measure door, engine, start-up and memory on this machine (Linux), each against a bare one in the same run."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", choices=("door", "engine"), help="measure just this")
        parser.add_argument("--seconds", type=float, default=3.0, help="per figure of the door (default: 3)")
        parser.add_argument("--rounds", type=int, default=6, help="per figure of the engine (default: 6)")
        parser.add_argument("--models-dir", metavar="DIR", help="model files of the embedded engine (default: models/)")
        parser.add_argument("--json", action="store_true", help="JSON instead of the table")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["seconds"] <= 0 or options["rounds"] < 1:
            raise CommandError("--seconds must be above 0 and --rounds at least 1")
        if not Path("/proc/self/stat").exists():
            raise CommandError("bench reads CPU time and memory from /proc: it runs on Linux")
        models_dir = Path(options["models_dir"] or model_files.default_models_dir()).resolve()
        figures: dict[str, Any] = {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 2)}
        try:
            with tempfile.TemporaryDirectory(prefix="narrowgauge-bench-") as directory:
                if options["only"] != "engine":
                    figures["door"] = bench.door(Path(directory, "door"), options["seconds"])
                if options["only"] != "door":
                    if model_files.missing(EMBEDDED_FILES, models_dir):
                        raise CommandError(f"the model files are not in {models_dir}: run `manage.py pull`")
                    figures["engine"] = bench.engine(Path(directory, "engine"), models_dir, options["rounds"])
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(figures, indent=1) if options["json"] else _table(figures))


def _table(figures: dict[str, Any]) -> str:
    lines = [f"{figures['cores']} cores, load average before: {figures['load_average']}"]
    if door := figures.get("door"):
        lines += ["", "door          connections  requests/s  CPU ms  median ms  rate / hello  CPU / hello"]
        for name, by_connections in door.items():
            for connections, row in by_connections.items():
                ratios = (
                    f"{row['rate_ratio']:13.2f}{row['cpu_ratio']:13.2f}" if "rate_ratio" in row else f"{1:13}{1:13}"
                )
                lines.append(
                    f"{name:14}{connections:>11}{row['per_s']:12.0f}{row['cpu_ms']:8.2f}{row['p50_ms']:11.2f} {ratios}"
                )
    if engine := figures.get("engine"):
        speed = engine["speed"]
        lines += ["", f"{speed['model']}, {speed['answer_tokens']} tokens an answer: tokens/s bare, through, ratio"]
        for streams in (1, 2):
            row = speed[f"{streams}_streams"]
            bare, through = row["bare_tokens_per_s"], row["through_tokens_per_s"]
            lines.append(f"  {streams} at once: {bare:.1f}, {through:.1f}, {row['ratio']:.3f}")
        lines += ["", "from `up` to the first real answer (port open before that)"]
        for name, row in engine["start"].items():
            lines.append(f"  {name}: {row['first_answer_s']:.2f} s ({row['port_open_s']:.2f} s)")
        memory = engine["memory"]
        lines.append(
            f"memory with the last models loaded: {memory['all_mb']} MB = server {memory['server_mb']} + models "
            f"{memory['models_mb']}"
        )
    return "\n".join(lines)
