"""`manage.py agentkey SLUG`: a new bearer key for an agent, alone on stdout.

Rule: works on a fresh data directory and while `up` is running on it (which sees the key within a second).
"""

import argparse
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane import audit, data_dir, database, keys, queries
from controlplane.models import Agent, AgentKey
from optimizer.core.errors import ConfigurationError
from optimizer.core.tiers import DEFAULT, TIER_SLUGS

LONGEST_OVERLAP_H = 8760


class Command(BaseCommand):
    help = "Print a new bearer key of an agent. It is shown this once; only its digest is stored."
    requires_system_checks = ()  # a key is wanted: `manage.py check` is for the rest

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("slug", metavar="SLUG", help="the agent, for instance python-developer")
        parser.add_argument("--create", action="store_true", help="make the agent if it does not exist")
        parser.add_argument("--tier", choices=TIER_SLUGS, help=f"tier of an agent made now (default: {DEFAULT})")
        parser.add_argument("--name", default="", help="where the key is used, shown in the admin")
        parser.add_argument(
            "--scope",
            action="append",
            choices=[scope.value for scope in keys.Scope],
            help="what the key may do; may be given twice (default: requests)",
        )
        parser.add_argument("--rotate", metavar="PREFIX", help="a new key in the place of ng_PREFIX_...")
        parser.add_argument(
            "--overlap-hours", type=float, default=0.0, help="how long a rotated key goes on working (default: 0)"
        )
        parser.add_argument("--days", type=float, help="days until the key expires (default: never)")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, slug: str, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        days = options["days"]
        if days is not None and not 0 < days <= 36_500:
            raise CommandError("--days must be above 0 and at most 36500")
        if options["rotate"]:
            self.stdout.write(_rotated(slug, options["rotate"], options["overlap_hours"]))
            return
        agent = Agent.objects.filter(slug=slug).first() or self._made(slug, options)
        token = keys.issue(
            agent,
            options["name"],
            timezone.now() + timedelta(days=days) if days else None,
            scopes=[keys.Scope(scope) for scope in options["scope"] or [keys.Scope.REQUESTS]],
            actor=audit.COMMAND_LINE,
        )
        self.stdout.write(token)

    def _made(self, slug: str, options: dict[str, Any]) -> Agent:
        if not options["create"]:
            near = queries.near_matches(slug)
            hint = f"Did you mean {' or '.join(near)}?" if near else "manage.py agentkey SLUG --create makes it."
            raise CommandError(f"no agent '{slug}'. {hint}")
        agent = Agent(slug=slug, name=slug.replace("-", " ").title(), tier_id=options["tier"] or DEFAULT)
        try:
            agent.full_clean()
        except ValidationError as error:
            raise CommandError(f"'{slug}' cannot be an agent: {'; '.join(error.messages)}") from error
        agent.save()
        audit.record(audit.COMMAND_LINE, "add", f"agent {slug}", tier=agent.tier_id)
        return agent


def _rotated(slug: str, prefix: str, overlap_hours: float) -> str:
    if not 0 <= overlap_hours <= LONGEST_OVERLAP_H:
        raise CommandError(f"--overlap-hours must be from 0 to {LONGEST_OVERLAP_H}")
    old = AgentKey.objects.select_related("agent").filter(prefix=prefix, agent__slug=slug).first()
    if old is None or old.state(timezone.now()) != "live":
        raise CommandError(f"agent '{slug}' has no live key ng_{prefix}_...; the page of the agent lists them")
    return keys.rotate(old, timedelta(hours=overlap_hours), actor=audit.COMMAND_LINE)
