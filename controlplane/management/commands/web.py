"""`manage.py web`: the dashboard, the admin and all APIs from this process, with the engine in another one.

Rule: any number of them may run; each needs REDIS_URL, to reach the engine, and the engine's database.
"""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from controlplane import data_dir, database, serving
from controlplane.link.connection import Names, connect
from controlplane.link.remote import RemoteFront
from controlplane.management.foreground import ForegroundCommand, add_address


class Command(ForegroundCommand):
    help = "Serve agents and the dashboard from this process; `manage.py engine`, elsewhere, runs the models."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_address(parser)
        data_dir.add_argument(parser)

    def serve(self, options: dict[str, Any]) -> None:
        if not settings.REDIS_URL:
            raise CommandError("web needs REDIS_URL to reach an engine; `manage.py up` serves from one process")
        host, port = options["host"], options["port"]
        data_dir.confirm(options["data_dir"])
        data_dir.prepare()
        serving.check_port(host, port)
        for step in database.bring_up_to_date():
            self.say(f"Set-up: {step}")
        password = serving.first_password()
        front = RemoteFront(connect(settings.REDIS_URL), Names(settings.NODE_GROUP))
        serving.Serving(front, host, port, password, self.say).run()
