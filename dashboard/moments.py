"""Times as forms send them."""

from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime


def moment(text: str) -> datetime | None:
    """A time as a form sends it, in UTC; None when it is none."""
    try:
        found = parse_datetime(text.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
