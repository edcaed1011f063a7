"""Rows into a table, many at a time: `bulk_create` without a model object per row and a compiled expression per value.

Rule: one statement for all rows. A row whose key is there already is left alone. The thread that writes shares the
interpreter with the event loop, so what a row costs here is taken from the requests (docs/stored-state.md).
Must not know: what the rows mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection, models

ADAPTED = (models.DateTimeField, models.JSONField)  # what each database takes in its own way; the rest goes as it is


def insert(model: type[models.Model], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert `rows`, values by field, with a value for every field. Within the caller's transaction.

    Raises KeyError when a value is missing and django.db's errors when the database refuses one.
    """
    fields = model._meta.concrete_fields
    names = [field.attname for field in fields]
    adapted = [(place, field) for place, field in enumerate(fields) if isinstance(field, ADAPTED)]
    values = []
    for row in rows:
        of_row = [row[name] for name in names]
        for place, field in adapted:
            of_row[place] = field.get_db_prep_save(of_row[place], connection)
        values.append(of_row)
    with connection.cursor() as cursor:
        cursor.executemany(_statement(model), values)


def _statement(model: type[models.Model]) -> str:
    """SQLite (3.24 and later) and Postgres understand the same."""
    quoted = connection.ops.quote_name
    columns = [quoted(field.column) for field in model._meta.concrete_fields]
    places = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quoted(model._meta.db_table)} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"
