"""A database of the first version, with rows in every table, brought up to date: `python -m tests.migrate_forward`.

Prints one line of JSON: what is wrong (nothing, it is hoped), how many tables and rows were followed, and which
migrations were applied. The database is the one that the environment names; it must be empty.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any

import django

FIRST = ("controlplane", "0001_initial")
MOMENT = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
SAMPLES: dict[str, Any] = {
    "BigIntegerField": 7,
    "BinaryField": b"\x00\xff\x00",
    "BooleanField": True,
    "CharField": "a word",
    "DateTimeField": MOMENT,
    "FloatField": 0.5,
    "IntegerField": 7,
    "JSONField": {"a": [1, None, "b"]},
    "PositiveBigIntegerField": 7,
    "PositiveIntegerField": 7,
    "PositiveSmallIntegerField": 1,
    "SlugField": "a-word",
    "TextField": "a text\nof two lines, \u00fcnusual",
}


def sample(model: Any, made: dict[str, Any]) -> Any:
    """An unsaved row of a model as it was, with a value in every column."""
    values = {}
    for field in model._meta.local_concrete_fields:
        if field.get_internal_type() in ("AutoField", "BigAutoField"):
            continue
        if field.is_relation:
            target = made.get(field.related_model._meta.label)
            values[field.attname] = target.pk if target is not None else None
        elif field.choices:
            values[field.attname] = field.choices[0][0]
        else:
            value = SAMPLES[field.get_internal_type()]
            values[field.attname] = value[: field.max_length] if isinstance(value, str) else value
    return model(**values)


def columns(row: Any) -> dict[str, Any]:
    return {
        field.attname: bytes(value) if isinstance(value := getattr(row, field.attname), memoryview) else value
        for field in row._meta.local_concrete_fields
    }


def main() -> dict[str, Any]:
    from django.apps import apps
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from controlplane import database, queries

    executor = MigrationExecutor(connection)
    others = [node for node in executor.loader.graph.leaf_nodes() if node[0] != "controlplane"]
    executor.migrate([FIRST, *others])
    old = executor.loader.project_state([FIRST]).apps
    made: dict[str, Any] = {}
    for model in sorted(old.get_app_config("controlplane").get_models(), key=lambda m: _depth(m)):
        row = sample(model, made)
        row.save()
        made[model._meta.label] = model.objects.get(pk=row.pk)
    before = {label: columns(row) for label, row in made.items()}

    done = database.bring_up_to_date()

    wrong = []
    for label, was in before.items():
        model = apps.get_model(label)
        row = model._base_manager.filter(pk=made[label].pk).first()
        if row is None:
            wrong.append(f"{label}: the row is gone")
            continue
        now = columns(row)
        wrong += [
            f"{label}.{name}: {was[name]!r} became {now[name]!r}"
            for name in was.keys() & now.keys()
            if was[name] != now[name] and (label, name) not in COUNTERS
        ]
    agents = queries.agent_profiles()
    if len(agents) != 132 or "a-word" not in agents:
        wrong.append(f"{len(agents)} agents are served")
    applied = [name for app, name in executor.loader.disk_migrations if app == "controlplane"]
    return {"wrong": wrong, "rows": len(before), "done": done, "migrations": sorted(applied), "on": connection.vendor}


COUNTERS = {("controlplane.StateVersion", "version")}  # moves with every change of the others


def _depth(model: Any) -> int:
    """Models after those that they point at."""
    targets = [
        f.related_model for f in model._meta.local_concrete_fields if f.is_relation and f.related_model is not model
    ]
    return 1 + max((_depth(target) for target in targets), default=0)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    print(json.dumps(main()))
