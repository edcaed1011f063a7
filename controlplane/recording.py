"""This installation's recorded traffic and the setting it ran under, as a replay needs them.

Rule: reads no prompt and no answer. Synchronous; called in a thread or by a command.
Must not know: how a replay works.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count
from django.db.models.functions import TruncHour

from controlplane import queries, storable, thresholds
from controlplane.models import LanguageModel, RequestRecord
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import LEAST_PIECES
from optimizer.ports import Record
from optimizer.simulation.recording import Recording, recording
from optimizer.simulation.replay import parts_of
from optimizer.simulation.workload import Arrival

_TEXTS = ("prompt_original", "prompt_sent", "answer")
_FIELDS = [field.name for field in dataclasses.fields(Record) if field.name not in _TEXTS]
_CHUNK = 2_000
HOURS = 8.0  # of traffic that are replayed
LEAST_SPAN_S = 900.0  # less traffic than this is no picture of a day


@dataclass(frozen=True, slots=True)
class RecentTraffic:
    """What was asked lately of models that are served now and fit, in pieces to be replayed."""

    parts: Sequence[Sequence[Arrival]]
    requests: int
    span_s: float

    @property
    def enough(self) -> bool:
        """Whether it can prove anything."""
        return self.span_s >= LEAST_SPAN_S and len(self.parts) >= LEAST_PIECES


def lately(now: float, in_force: Thresholds, catalogue: Catalogue) -> RecentTraffic:
    """The last hours before `now`, seconds since the epoch."""
    arrivals = usable(recorded(now - HOURS * 3600.0, now).arrivals, catalogue, in_force)
    span_s = arrivals[-1].at_s - arrivals[0].at_s if arrivals else 0.0
    return RecentTraffic(parts_of(arrivals) if arrivals else [], len(arrivals), span_s)


def usable(arrivals: Iterable[Arrival], catalogue: Catalogue, in_force: Thresholds) -> list[Arrival]:
    """Arrivals on models that are served now and fit."""
    fits = {name for name, spec in catalogue.models.items() if spec.footprint_mb <= in_force.usable_mb}
    return [arrival for arrival in arrivals if arrival.model in fits]


def recorded(since: float, until: float) -> Recording:
    """What was asked within [since, until), seconds since the epoch."""
    priorities = {slug: profile.priority for slug, profile in queries.agent_profiles().items()}
    return recording(records(since, until), priorities)


def records(since: float, until: float) -> Iterator[Record]:
    """The records of a time in order of arrival, without their texts."""
    rows = RequestRecord.objects.filter(arrived_at__gte=storable.moment(since), arrived_at__lt=storable.moment(until))
    for values in rows.order_by("arrived_at", "pk").values(*_FIELDS).iterator(chunk_size=_CHUNK):
        yield _record(values)


def _record(values: dict[str, Any]) -> Record:
    values["arrived_at"] = values["arrived_at"].timestamp()
    values["decisions"] = tuple(values["decisions"])
    return Record(**values, **dict.fromkeys(_TEXTS, ""))


def by_hour(since: float) -> list[tuple[datetime, int]]:
    """(hour, requests that arrived in it) since a time, hours without one left out, in order."""
    rows = RequestRecord.objects.filter(arrived_at__gte=storable.moment(since)).order_by()
    counted = rows.annotate(hour=TruncHour("arrived_at", tzinfo=UTC)).values("hour").annotate(n=Count("pk"))
    return [(row["hour"], row["n"]) for row in counted.order_by("hour")]


def setting() -> tuple[Thresholds, Catalogue]:
    """The thresholds in force and the models of the active node, with the speeds measured here.

    Raises ConfigurationError when a tier has no model there.
    """
    in_force = thresholds.current()
    node = queries.active_node()
    return in_force, queries.catalogue(node.kind if node else LanguageModel.Backend.OLLAMA, in_force)
