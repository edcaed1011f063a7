"""`manage.py export_tasks`: durable tasks as JSON lines, with prompt, answer and decisions.

Rule: reads in chunks, so that any number of tasks fits into memory. Works while `up` is running.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from controlplane import data_dir, database, storable
from controlplane.management.examples import CommandWithExamples
from controlplane.models import DurableTask
from controlplane.task_form import detail_of
from optimizer.core.errors import ConfigurationError

EXAMPLES = """examples:
  manage.py export_tasks --out tasks.jsonl
  manage.py export_tasks --agent debugger --status succeeded --days 7 | gzip > week.jsonl.gz
  manage.py export_tasks --batch batch-0123 --no-text
"""
_ROWS_AT_ONCE = 500


class Command(CommandWithExamples):
    help = "Write durable tasks as JSON lines, oldest first."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--agent", default="", help="only this agent's")
        parser.add_argument("--batch", default="", metavar="ID", help="only this batch's")
        parser.add_argument("--status", default="", choices=["", *DurableTask.Status.values], help="only these")
        parser.add_argument("--days", type=float, default=3650.0, help="accepted in so many last days (default: all)")
        parser.add_argument("--no-text", action="store_true", help="neither prompts nor answers")
        parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: stdout)")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, agent: str, batch: str, status: str, days: float, **options: Any) -> None:
        if not 0 < days <= 36_500:
            raise CommandError("--days must be above 0 and at most 36500")
        which = {"agent": agent, "batch__public_id": batch, "status": status}
        since = storable.moment(time.time() - days * 86_400.0)
        written, out = 0, options["out"]
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            with nullcontext(sys.stdout) if out is None else out.open("w", encoding="utf-8") as file:
                for row in _rows(created_at__gte=since, **{name: value for name, value in which.items() if value}):
                    file.write(json.dumps(_exported(row, options["no_text"]), ensure_ascii=False) + "\n")
                    written += 1
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"cannot write {out or 'to stdout'}: {error.strerror}") from error
        self.stderr.write(f"{written} durable tasks exported")


def _rows(**which: Any) -> Iterator[DurableTask]:
    after = 0
    while True:
        rows = DurableTask.objects.select_related("batch", "delivery").filter(number__gt=after, **which)
        chunk = list(rows.order_by("number")[:_ROWS_AT_ONCE])
        yield from chunk
        if len(chunk) < _ROWS_AT_ONCE:
            return
        after = chunk[-1].number


def _exported(row: DurableTask, no_text: bool) -> dict[str, Any]:
    shown = {"task": row.body, **detail_of(row)}
    return (
        {name: value for name, value in shown.items() if name not in ("task", "result", "decisions")}
        if no_text
        else shown
    )
