"""`manage.py agents export|import`: the agents as a CSV or JSON file, and back.

Rule: thin; an import says what it would do, row by row, and does it only if no row is wrong. A running engine takes
the change up within a second. Must not know: what a row means.
"""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from controlplane import agent_files, audit, data_dir, database
from controlplane.agent_files import Kind, Plan
from controlplane.management.examples import CommandWithExamples
from controlplane.models import Agent
from optimizer.core.errors import ConfigurationError

EXAMPLES = """examples:
  manage.py agents export --out agents.csv
  manage.py agents export --format json --tier opus > opus.json
  manage.py agents import agents.csv --dry-run           what it would do
  manage.py agents import agents.csv
"""


class Command(CommandWithExamples):
    help = "Write the agents to a CSV or JSON file, or take such a file in."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("action", choices=("export", "import"))
        add("file", nargs="?", type=Path, metavar="FILE", help="import: the file to take in")
        add("--out", type=Path, metavar="FILE", help="export: where to (default: stdout)")
        add("--format", choices=agent_files.FORMATS, help="default: by the file's name, else csv")
        add("--tier", default="", help="export: of one tier")
        add("--dry-run", action="store_true", help="import: only say what it would do")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, action: str, file: Path | None, out: Path | None, **options: Any) -> None:
        form = options["format"] or _format_of(file if action == "import" else out)
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            if action == "export":
                self._export(out, form, options["tier"])
            else:
                self._import(file, form, options["dry_run"])
        except ConfigurationError as error:
            raise CommandError(str(error)) from error

    def _export(self, out: Path | None, form: str, tier: str) -> None:
        agents = Agent.objects.all()
        text = agent_files.write(agents.filter(tier_id=tier) if tier else agents, form)
        if out is None:
            self.stdout.write(text, ending="")
            return
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write {out}: {error.strerror}") from error

    def _import(self, file: Path | None, form: str, dry_run: bool) -> None:
        if file is None:
            raise CommandError("say which file: manage.py agents import FILE")
        try:
            wanted = agent_files.plan(file.read_text(encoding="utf-8-sig"), form)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"cannot read {file}: {error}") from error
        self.stdout.write(_said(wanted))
        if wanted.count(Kind.WRONG):
            raise CommandError(f"{wanted.count(Kind.WRONG)} rows are wrong; nothing was changed")
        if dry_run:
            self.stdout.write("Nothing was changed: this was a dry run.")
        else:
            self.stdout.write(f"{agent_files.apply(wanted, audit.COMMAND_LINE)} agents written.")


def _format_of(file: Path | None) -> str:
    return "json" if file is not None and file.suffix.lower() == ".json" else "csv"


def _said(wanted: Plan) -> str:
    lines = []
    for row in wanted.rows:
        if row.kind is Kind.WRONG:
            lines.append(f"row {row.line}, {row.slug or '(no slug)'}: {'; '.join(row.problems)}")
        elif row.kind is Kind.ADD:
            lines.append(f"row {row.line}, {row.slug}: new")
        elif row.kind is Kind.CHANGE:
            steps = ", ".join(
                f"{name} {old or '(empty)'} → {new or '(empty)'}" for name, (old, new) in row.changes.items()
            )
            lines.append(f"row {row.line}, {row.slug}: {steps}")
    counts = ", ".join(f"{wanted.count(kind)} {kind.value}" for kind in Kind)
    return "\n".join([*lines, counts])
