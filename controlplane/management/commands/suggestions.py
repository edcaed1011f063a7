"""`manage.py suggestions`: list what the rules and the tuner suggest; apply, dismiss or roll back one.

Rule: the same decisions as in the admin, noted in the audit as made on the command line. A running engine takes an
applied change up within a second. Must not know: how suggestions come about.
"""

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import audit, data_dir, database, suggestions
from controlplane.models import Suggestion
from optimizer.core.errors import ConfigurationError


class Command(BaseCommand):
    help = "List open suggestions, or decide on one."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "decision", nargs="?", choices=list(suggestions.DECISIONS), help="what to do (default: list them)"
        )
        parser.add_argument("id", nargs="?", type=int, metavar="ID", help="which one")
        parser.add_argument("--all", action="store_true", help="list decided ones too")
        parser.add_argument("--json", action="store_true", help="list as JSON")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            if options["decision"]:
                self._decide(options["decision"], options["id"])
            else:
                self._list(options["all"], options["json"])
        except ConfigurationError as error:  # ThresholdError is one
            raise CommandError(str(error)) from error

    def _decide(self, decision: str, number: int | None) -> None:
        if number is None:
            raise CommandError(f"say which one: manage.py suggestions {decision} ID")
        try:
            row = suggestions.decide(number, decision, audit.COMMAND_LINE)
        except suggestions.NotThere as error:
            raise CommandError(f"{error}; manage.py suggestions --all lists them") from None
        except suggestions.Undecidable as error:
            raise CommandError(str(error)) from None
        state = Suggestion.State(row["state"]).label
        self.stdout.write(f"{number} {state}: {row['title']}")

    def _list(self, everything: bool, as_json: bool) -> None:
        found = Suggestion.objects.all() if everything else Suggestion.objects.filter(state=Suggestion.State.OPEN)
        if as_json:
            self.stdout.write(json.dumps([suggestions.as_data(suggestion) for suggestion in found], indent=1))
            return
        for suggestion in found:
            change = " ".join(f"{name}={value}" for name, value in suggestion.change.items()) or "advice only"
            state = suggestion.get_state_display()
            self.stdout.write(
                f"{suggestion.pk:>4}  {suggestion.severity:<6}  {state:<11}  {suggestion.title}  [{change}]"
            )
        if not found:
            self.stdout.write("No open suggestion." if not everything else "No suggestion yet.")
