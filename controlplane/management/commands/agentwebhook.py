"""`manage.py agentwebhook`: where an agent's webhook goes. Prints the signing secret alone on stdout.

Rule: this and the admin are the only ways to set an address; no request can.
"""

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from controlplane import audit, data_dir, database, queries, webhooks
from controlplane.management.examples import CommandWithExamples
from controlplane.models import Agent
from optimizer.core.errors import ConfigurationError

EXAMPLES = """examples:
  manage.py agentwebhook debugger https://example.org/hooks/narrowgauge
  manage.py agentwebhook debugger --remove
"""


class Command(CommandWithExamples):
    help = "Set where an agent is told, signed, that its durable tasks and batches ended."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("slug", help="the agent")
        parser.add_argument("url", nargs="?", default="", help="an http:// or https:// address")
        parser.add_argument("--remove", action="store_true", help="send it nothing any more")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, slug: str, url: str, remove: bool, **options: Any) -> None:
        if bool(url) == remove:
            raise CommandError("give either an address or --remove")
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            agent = Agent.objects.filter(slug=slug).first()
            if agent is None:
                near = ", ".join(queries.near_matches(slug))
                raise CommandError(f"no agent '{slug}'" + (f"; did you mean {near}?" if near else ""))
            webhooks.set_address(agent, url, audit.COMMAND_LINE)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        if url:
            self.stdout.write(agent.webhook_secret)
