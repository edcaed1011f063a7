"""A command that serves in the foreground until it is told to stop: `up`, `web`, `engine`.

Rule: it brings the database up to date itself, and ends with one clear line when it cannot serve.
Must not know: what is served.
"""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from optimizer.core.errors import NarrowgaugeError


class ForegroundCommand(BaseCommand):
    """Define `serve`."""

    requires_migrations_checks = False  # `database.bring_up_to_date` migrates
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.serve(options)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error

    def serve(self, options: dict[str, Any]) -> None:
        """Serve, and return after a clean stop. A NarrowgaugeError is what keeps it from serving."""
        raise NotImplementedError

    def say(self, line: str) -> None:
        """A line for the person who watches, at once."""
        self.stdout.write(line)
        self.stdout.flush()


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declare where to listen."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
