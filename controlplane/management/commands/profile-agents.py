"""`manage.py profile-agents`: assigned tier against measured complexity and outcomes, with suggested reassignments.

Rule: thin; reads, never changes an assignment. Must not know: how an assignment is judged (optimizer/profiling.py).
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import data_dir, database
from controlplane.profiles import agent_profiles
from optimizer.core.errors import ConfigurationError
from optimizer.profiling import Profile


class Command(BaseCommand):
    help = "Compare every agent's assigned tier with its workload, and suggest reassignments."
    requires_system_checks = ()  # reading needs none of them

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--days", type=float, default=7.0, help="how far back to look (default: 7)")
        parser.add_argument("--simulated", action="store_true", help="count answers of the simulated backend too")
        parser.add_argument("--suggested", action="store_true", help="only agents with a suggested reassignment")
        parser.add_argument("--json", action="store_true", help="JSON instead of the table")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["days"] <= 36_500:
            raise CommandError("--days must be above 0 and at most 36500")
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        found = agent_profiles(options["days"], options["simulated"])
        shown = [profile for profile in found if profile.suggested] if options["suggested"] else found
        if options["json"]:
            self.stdout.write(json.dumps({"agents": [asdict(profile) for profile in shown]}, indent=1))
            return
        suggested = sum(bool(profile.suggested) for profile in found)
        self.stdout.write(f"{len(found)} agents, {suggested} suggested reassignment{'s' * (suggested != 1)}\n\n")
        if shown:
            self.stdout.write(table(shown))


def table(profiles: list[Profile]) -> str:
    """One line an agent."""
    width = max(len("agent"), *(len(profile.slug) for profile in profiles))
    lines = [f"{'agent':{width}}  {'assigned':8}  {'suggested':9}  {'requests':>8}  {'median':>6}  why"]
    for profile in profiles:
        middle = "-" if profile.complexity is None else f"{profile.complexity:.2f}"
        lines.append(
            f"{profile.slug:{width}}  {profile.assigned:8}  {profile.suggested or '-':9}  {profile.requests:8}  "
            f"{middle:>6}  {profile.sentence}"
        )
    return "\n".join(lines)
