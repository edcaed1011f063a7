"""`manage.py carry-out-replay ID`: do a replay that was asked for on the page. Started by the page itself.

Rule: thin, at low priority; how far it is and what came of it are told in the database.
"""

import argparse
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane import data_dir, replays
from controlplane.models import Replay
from controlplane.own_process import LOW_PRIORITY


class Command(BaseCommand):
    help = "Carry out a replay that was asked for on the page (which starts this by itself)."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id", type=int, metavar="ID")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, id: int, **options: Any) -> None:
        os.nice(LOW_PRIORITY)
        replay = Replay.objects.select_related("traffic").filter(pk=id, state=Replay.State.RUNNING).first()
        if replay is None:
            raise CommandError(f"no replay {id} waits to be carried out")
        self.stdout.write(replays.carry_out(replay))
