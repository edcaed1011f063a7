"""A command whose `--help` ends with examples.

Rule: they are shown as they are written in its module's `EXAMPLES`. Must not know: what the command does.
"""

import argparse
from typing import Any

from django.core.management.base import BaseCommand


class CommandWithExamples(BaseCommand):
    """Set `examples`."""

    examples = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=self.examples, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )
