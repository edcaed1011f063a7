"""`manage.py thresholds`: what is in force; change it, see its history and its effect, take a change back.

Rule: the same changes as on the page, noted as made on the command line. A running engine takes one up within a
second. Must not know: what a threshold means.
"""

import argparse
import dataclasses
import json
import time
from typing import Any

from django.core.management.base import CommandError

from controlplane import audit, data_dir, database, effects, recording, thresholds
from controlplane.management.examples import CommandWithExamples
from controlplane.models import ThresholdRevision
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import as_dict, default, limits

EXAMPLES = """examples:
  manage.py thresholds                                   every value; * = not the default
  manage.py thresholds set stay=30 urgent=2 --reason "replayed on yesterday: 7 % less waiting"
  manage.py thresholds history
  manage.py thresholds effect                            what happened since the latest change
  manage.py thresholds roll-back 12
"""
HISTORY_SHOWN = 30
EFFECT_FIELDS = (
    ("requests", "requests", "{:.0f}"),
    ("mean response, s", "mean_s", "{:.2f}"),
    ("p95 response, s", "p95_s", "{:.2f}"),
    ("within target", "within_target", "{:.1%}"),
    ("response / target", "lateness", "{:.3f}"),
    ("swaps", "swaps", "{:.0f}"),
    ("from the cache", "cache_hits", "{:.1%}"),
)


class Command(CommandWithExamples):
    help = "List, set and roll back thresholds, and see what a change did."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("action", nargs="?", default="list", choices=("list", "set", "history", "effect", "roll-back"))
        add("what", nargs="*", metavar="NAME=VALUE|REVISION", help="set: the new values; effect, roll-back: a revision")
        add("--reason", default="", help="why; it is kept with the change (set needs one)")
        add("--json", action="store_true", help="JSON instead of text")
        data_dir.add_argument(parser)

    def handle(self, *args: Any, action: str, what: list[str], reason: str, **options: Any) -> None:
        try:
            data_dir.confirm(options["data_dir"])
            database.bring_up_to_date()
            data, text = self._done(action, what, reason)
        except ConfigurationError as error:  # ThresholdError is one
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(data, indent=1) if options["json"] else text)

    def _done(self, action: str, what: list[str], reason: str) -> tuple[Any, str]:
        """The action's result as plain data and as text."""
        if action in ("list", "history") and what:
            raise CommandError(f"{action} takes nothing more; `thresholds set NAME=VALUE --reason WHY` changes one")
        if action == "list":
            return _listed()
        if action == "history":
            return _history()
        if action == "set":
            return self._set(what, reason)
        revision = _revision(what)
        return _effect(revision) if action == "effect" else _rolled_back(revision, reason)

    def _set(self, what: list[str], reason: str) -> tuple[Any, str]:
        if not what:
            raise CommandError("say what: manage.py thresholds set NAME=VALUE --reason WHY")
        before = thresholds.latest()
        thresholds.change(dict(_setting(text) for text in what), audit.COMMAND_LINE, reason)
        made = thresholds.latest()
        if made is None or made == before:
            return {"revision": None, "changes": {}}, "Those values were in force already."
        return {"revision": made.pk, "changes": made.changes}, f"revision {made.pk}: {_steps(made)}"


def _listed() -> tuple[Any, str]:
    values = as_dict(thresholds.current())
    width = max(map(len, values))
    rows = [
        f"{'*' if value != default(name) else ' '} {name:<{width}}  {value!s:<10} {limits()[name].unit}".rstrip()
        for name, value in values.items()
    ]
    return values, "\n".join(rows)


def _history() -> tuple[Any, str]:
    rows = list(thresholds.history()[:HISTORY_SHOWN])
    data = [
        {"revision": r.pk, "at": r.at.isoformat(), "author": r.author, "reason": r.reason, "changes": r.changes}
        for r in rows
    ]
    text = "\n".join(f"{r.pk:>5}  {r.at:%Y-%m-%d %H:%M}  {r.author}: {_steps(r)}  ({r.reason})" for r in rows)
    return data, text or "No change yet: the defaults are in force."


def _effect(revision: ThresholdRevision) -> tuple[Any, str]:
    effect = effects.of_change(revision.at.timestamp(), time.time(), recording.setting()[1])
    lines = [f"revision {revision.pk}: {_steps(revision)}; {effect.span_s / 60:.0f} min before and since"]
    for label, name, form in EFFECT_FIELDS:
        before, after = (form.format(getattr(side, name)) for side in (effect.before, effect.after))
        lines.append(f"  {label:<20} {before:>10} {after:>10}")
    return {"revision": revision.pk, **dataclasses.asdict(effect)}, "\n".join(lines)


def _rolled_back(revision: ThresholdRevision, reason: str) -> tuple[Any, str]:
    before = thresholds.latest()
    thresholds.roll_back(revision.pk, audit.COMMAND_LINE, reason)
    made = thresholds.latest()
    if made is None or made == before:
        return {"revision": None, "changes": {}}, f"Revision {revision.pk} has been undone already."
    return {"revision": made.pk, "changes": made.changes}, f"revision {made.pk}: {_steps(made)}"


def _revision(what: list[str]) -> ThresholdRevision:
    """The revision that was named, else the latest."""
    if not what:
        latest = thresholds.latest()
        if latest is None:
            raise CommandError("no change has been made yet")
        return latest
    found = ThresholdRevision.objects.filter(pk=int(what[0])).first() if what[0].isdigit() else None
    if found is None or len(what) > 1:
        raise CommandError(f"no revision {' '.join(what)}; manage.py thresholds history lists them")
    return found


def _steps(revision: ThresholdRevision) -> str:
    return ", ".join(f"{name} {old} → {new}" for name, (old, new) in revision.changes.items())


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigurationError(f"set wants NAME=VALUE, not '{text}'")
    return name.strip(), value.strip()
