"""`manage.py doctor`: looks everything over and says how to mend what is wrong. Exit status 1 if anything fails."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import backends, data_dir
from controlplane.doctor import Finding, Level, Setup, examine
from optimizer import embedding, model_files
from optimizer.core.errors import NarrowgaugeError


class Command(BaseCommand):
    help = "Look over backend, models, disk, database, Redis, clock and permissions; say how to mend what is wrong."
    requires_system_checks = ()  # they are among what is looked at

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--backend", choices=backends.NAMES, default="auto", help="as for `up` (default: auto)")
        parser.add_argument("--ollama-url", default=os.environ.get("OLLAMA_URL", embedding.OLLAMA_URL), metavar="URL")
        parser.add_argument("--models-dir", metavar="DIR", help="model files of the embedded engine (default: models/)")
        parser.add_argument("--json", action="store_true", help="the findings as a JSON list")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        models_dir = Path(options["models_dir"] or model_files.default_models_dir())
        found = examine(Setup(options["backend"], options["ollama_url"], models_dir))
        self.stdout.write(json.dumps([asdict(one) for one in found]) if options["json"] else "\n".join(_lines(found)))
        if any(one.level is Level.FAIL for one in found):
            sys.exit(1)


def _lines(found: Iterable[Finding]) -> list[str]:
    return [
        f"{one.level:<4}  {one.subject:<8}  {one.message}" + (f"\n{'':16}-> {one.mend}" if one.mend else "")
        for one in found
    ]
