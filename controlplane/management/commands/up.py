"""`manage.py up`: everything in one process, in the foreground.

Rule: it refuses before it serves (data directory, port, a second owner), says what to do about it, and stops
cleanly on SIGTERM and Ctrl-C: running requests are ended, records written, models released.
"""

import argparse
from typing import Any

from django.conf import settings

from controlplane import data_dir, database, launch, serving
from controlplane.management.foreground import ForegroundCommand, add_address
from controlplane.node_lock import NodeLock

SCALED_HINT = (
    "REDIS_URL is set, but `up` is one process with an engine of its own. "
    "To scale out, run `manage.py engine` and one or more `manage.py web` instead (docs/scaled.md)."
)


class Command(ForegroundCommand):
    help = "Serve agents and the dashboard from this process; uses Ollama if it answers, else real small models."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_address(parser)
        launch.add_arguments(parser)

    def serve(self, options: dict[str, Any]) -> None:
        host, port = options["host"], options["port"]
        embed = launch.embedder(options)
        data_dir.confirm(options["data_dir"])
        directory = data_dir.prepare()
        serving.check_port(host, port)
        lock = NodeLock(directory, serving.address(host, port))
        if settings.REDIS_URL:
            self.say(SCALED_HINT)
        for step in database.bring_up_to_date():
            self.say(f"Set-up: {step}")
        password = serving.first_password()
        service = launch.service(options, embed, self.say)
        try:
            serving.Serving(service, host, port, password, self.say).run()
        finally:
            lock.release()
