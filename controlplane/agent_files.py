"""Agents as a file, CSV or JSON, and back: what a file would do, row by row, before anything is done.

Rule: the columns are the model's own editable fields, so a new field needs no code here. A column that is left out
keeps what is there; nothing is deleted. Either every row is taken in or none.
Must not know: where files come from or go.
"""

import copy
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction

from controlplane import audit, storable
from controlplane.models import Agent, Tier
from optimizer.core.errors import ConfigurationError
from optimizer.core.tiers import DEFAULT

FORMATS = ("csv", "json")
LONGEST_CHARACTERS = 2_000_000
MOST_ROWS = 5_000
_FIELDS: Mapping[str, Any] = {f.name: f for f in Agent._meta.concrete_fields if f.editable and not f.primary_key}
COLUMNS = tuple(_FIELDS)
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(StrEnum):
    ADD = "add"
    CHANGE = "change"
    SAME = "same"
    WRONG = "wrong"


@dataclass(slots=True)
class Row:
    """One line of a file: what it would do, or why it cannot. `changes`: field -> (is, would be), as texts."""

    line: int
    slug: str
    kind: Kind
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    agent: Agent | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file would do."""

    rows: Sequence[Row]

    def count(self, kind: str) -> int:
        return sum(row.kind == kind for row in self.rows)

    @property
    def ready(self) -> bool:
        """Whether it can be carried out and would change something."""
        return not self.count(Kind.WRONG) and any(row.kind in (Kind.ADD, Kind.CHANGE) for row in self.rows)


# --- out -------------------------------------------------------------------------------------------------


def write(agents: Iterable[Agent], form: str) -> str:
    """Agents in a format of `FORMATS`; reading it back changes nothing."""
    rows = [{name: _plain(agent, name) for name in COLUMNS} for agent in agents]
    if form == "json":
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _plain(agent: Agent, name: str) -> Any:
    """A field's value as a file has it: a tier by its slug, a priority by its name."""
    if name == "priority":
        return Agent.Priority(agent.priority).label
    value = getattr(agent, _FIELDS[name].attname)
    return str(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)


# --- in --------------------------------------------------------------------------------------------------


def plan(text: str, form: str) -> Plan:
    """What the file would do. Raises ConfigurationError when it is no such file at all."""
    if len(text) > LONGEST_CHARACTERS:
        raise ConfigurationError(f"the file is longer than {LONGEST_CHARACTERS:,} characters")
    text = text.replace("\r\n", "\n")
    rows = _from_json(text) if form == "json" else _from_csv(text)
    if not rows:
        raise ConfigurationError("the file holds no agent")
    if len(rows) > MOST_ROWS:
        raise ConfigurationError(f"{len(rows)} agents are too many for one file: at most {MOST_ROWS}")
    known = {agent.slug: agent for agent in Agent.objects.all()}
    tiers = set(Tier.objects.values_list("slug", flat=True))
    seen: dict[str, int] = {}
    return Plan([_row(line, given, known, tiers, seen) for line, given in rows])


def apply(wanted: Plan, actor: str) -> int:
    """Carry it out, all or nothing; returns the agents written. Raises ConfigurationError when a row is wrong."""
    if wanted.count(Kind.WRONG):
        raise ConfigurationError(f"{wanted.count(Kind.WRONG)} rows are wrong; nothing was changed")
    written = 0
    with transaction.atomic():
        for row in wanted.rows:
            if row.agent is None or row.kind not in (Kind.ADD, Kind.CHANGE):
                continue
            row.agent.save()
            changes = {name: list(pair) for name, pair in row.changes.items()}
            audit.record(actor, row.kind.value, f"agent {row.slug}", changes=changes, by="import")
            written += 1
    return written


def _from_csv(text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(names)
        reader.fieldnames = names
        return [(reader.line_num, row) for row in reader if any(row.values())]
    except csv.Error as error:
        raise ConfigurationError(f"line {reader.line_num} is no CSV: {error}") from None


def _from_json(text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"this is no JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError("the file must hold a JSON list of objects, one an agent")
    for row in rows:
        _check_columns(list(row))
    return list(enumerate(rows, 1))


def _check_columns(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise ConfigurationError(f"unknown column {', '.join(unknown)}; there are: {', '.join(COLUMNS)}")
    if "slug" not in names:
        raise ConfigurationError("every agent needs its slug: the column 'slug' is missing")


def _row(line: int, given: Mapping[str, Any], known: Mapping[str, Agent], tiers: set[str], seen: dict[str, int]) -> Row:
    slug = str(given.get("slug") or "").strip()
    row = Row(line, slug, Kind.WRONG)
    if None in given:
        row.problems.append("more cells than columns")
        return row
    if slug in seen:
        row.problems.append(f"slug: the same as in row {seen[slug]}")
        return row
    seen[slug] = line
    before = known.get(slug)
    agent = copy.copy(before) if before else Agent(slug=slug, tier_id=DEFAULT)
    for name, raw in given.items():
        if name == "slug" or raw is None:
            continue
        try:
            setattr(agent, _FIELDS[name].attname, _value(name, raw, tiers))
        except ValidationError as error:
            row.problems.append(f"{name}: {' '.join(error.messages)}")
    agent.name = agent.name or agent.slug
    if not row.problems:
        row.problems += _problems(agent)
    if row.problems:
        return row
    row.agent = agent
    row.changes = {
        name: (_text(_plain(before, name)) if before else "", _text(_plain(agent, name)))
        for name in COLUMNS
        if before is None or _plain(before, name) != _plain(agent, name)
    }
    row.kind = Kind.ADD if before is None else Kind.CHANGE if row.changes else Kind.SAME
    return row


def _value(name: str, raw: Any, tiers: set[str]) -> Any:
    """A cell as the field's own type. Raises ValidationError with a sentence."""
    text = raw.strip() if isinstance(raw, str) else raw
    if isinstance(text, dict | list):
        raise ValidationError("must be a single value")
    kind = _FIELDS[name]
    if name == "tier":
        if text not in tiers:
            raise ValidationError(f"'{str(text)[:40]}' is no tier; there are: {', '.join(sorted(tiers))}")
        return text
    if name == "priority":
        names = {choice.label: choice.value for choice in Agent.Priority}
        if text in names:
            return names[text]
        raise ValidationError(f"must be one of {', '.join(names)}")
    if isinstance(kind, models.BooleanField):
        word = str(text).lower()
        if word not in _YES + _NO:
            raise ValidationError("must be true or false")
        return word in _YES
    if isinstance(text, bool):
        raise ValidationError("must not be true or false")
    if text == "" and not isinstance(kind, models.CharField):
        if kind.null:
            return None
        raise ValidationError("must not be empty")
    if isinstance(text, str) and storable.text(text) != text:
        raise ValidationError("holds a character that cannot be stored")
    value = kind.to_python(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationError("must be a number")
    return value


def _problems(agent: Agent) -> list[str]:
    """What the model says of a whole agent, a sentence each."""
    try:
        agent.full_clean()
    except ValidationError as error:
        return [
            f"{name}: {message}" if name != "__all__" else message
            for name, messages in error.message_dict.items()
            for message in messages
        ]
    return []
