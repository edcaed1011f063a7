"""Values as every database takes them: Postgres refuses NUL, both refuse lone surrogates, JSON has no NaN.

Rule: a value is changed only where it could not be stored at all; the replacement is U+FFFD.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def text(value: str, longest: int | None = None) -> str:
    """`value` without NUL and lone surrogates, at most `longest` characters."""
    value = value.replace("\x00", REPLACEMENT)
    try:
        value.encode()
    except UnicodeEncodeError:
        # A pair of surrogates is one character after all; a lone one is replaced.
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value if longest is None else value[:longest]


def number(value: float) -> float:
    """`value`, or 0.0 for what is not a number."""
    return value if math.isfinite(value) else 0.0


def json(value: Any) -> Any:
    """`value` as plain JSON; what JSON lacks becomes null (NaN) or its text."""
    if isinstance(value, str):  # the usual ones first: every decision of every record comes through here
        return text(str(value))
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (dict, Mapping)):  # `dict` first: asking an abstract class is slow
        return {text(str(name)): json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json(item) for item in value]
    return text(str(value))


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as an aware time."""
    return datetime.fromtimestamp(seconds, tz=UTC)
