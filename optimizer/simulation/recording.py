"""Recorded traffic: ended requests as arrivals to be replayed, and arrivals as JSON lines.

Rule: holds times, sizes, agents and models, and which requests were the same (`k1`, `k2`, ...), never a text or a
hash of one. The lines are those that `workload.from_jsonl` reads. Must not know: where records are stored.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from optimizer.core.request import Priority
from optimizer.ports import Record
from optimizer.simulation.workload import Arrival, Open, Past, Traffic, Workload

COMBINED = "combined"  # protocol of the engine's own combined prompts; the questions in them are replayed instead
PAST_OF_EACH = 10  # answers of an agent that its predictions start from, as in the synthetic workloads


@dataclass(frozen=True, slots=True)
class Recording:
    """Arrivals from time 0 on, in order, and how many requests could not be used."""

    arrivals: tuple[Arrival, ...]
    left_out: int


def recording(records: Iterable[Record], priorities: Mapping[str, Priority]) -> Recording:
    """What `records` (in order of arrival) asked of the machine.

    A request whose answer was not finished is taken to be as long as its agent's (else its model's) median answer;
    a caller who left is taken to have the patience it showed. Requests refused at the door are left out: their sizes
    are not known.
    """
    kept: list[Record] = []
    left_out = 0
    for record in records:
        usable = record.model and record.prompt_tokens > 0 and record.status != "rejected"
        if usable and record.protocol != COMBINED:
            kept.append(record)
        else:
            left_out += 1
    typical = _typical_tokens(kept)
    names: dict[str, str] = {}
    start = kept[0].arrived_at if kept else 0.0
    arrivals = [
        Arrival(
            at_s=round(max(0.0, record.arrived_at - start), 3),
            agent=record.agent,
            model=record.model,
            prompt_tokens=record.prompt_tokens,
            output_tokens=record.output_tokens if record.status == "replied" else typical(record),
            priority=priorities.get(record.agent, Priority.AGENT),
            patience_s=round(record.total_s, 3) if record.status == "cancelled" else None,
            key=_key(record, names),
        )
        for record in kept
    ]
    return Recording(tuple(sorted(arrivals, key=lambda arrival: arrival.at_s)), left_out)


def _key(record: Record, names: dict[str, str]) -> str:
    """Equal for requests that the cache answers alike. A hit has the key of the answer it was given."""
    if record.cache == "off":
        return ""
    cache = [decision for decision in record.decisions if decision.get("stage") == "cache"]
    found = [decision.get("values", {}).get("key", "") for decision in cache]
    key = next((str(key) for key in reversed(found) if key), "")
    return names.setdefault(key, f"k{len(names) + 1}") if key else ""


def _typical_tokens(records: Sequence[Record]) -> Callable[[Record], int]:
    of_agent: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    of_model: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        if record.status == "replied":
            of_agent[record.agent, record.model].append(record.output_tokens)
            of_model[record.model].append(record.output_tokens)
    return lambda record: int(median(of_agent[record.agent, record.model] or of_model[record.model] or [1]))


def lines(arrivals: Iterable[Arrival]) -> Iterator[str]:
    """One JSON object an arrival; what is at its default is left out."""
    for arrival in arrivals:
        row: dict[str, object] = {
            "at_s": arrival.at_s,
            "agent": arrival.agent,
            "model": arrival.model,
            "prompt_tokens": arrival.prompt_tokens,
            "output_tokens": arrival.output_tokens,
        }
        if arrival.priority is not Priority.AGENT:
            row["priority"] = arrival.priority.name.lower()
        optional = {"deadline_s": arrival.deadline_s, "patience_s": arrival.patience_s, "key": arrival.key or None}
        row.update((name, value) for name, value in optional.items() if value is not None)
        yield json.dumps(row, separators=(",", ":"))


class _Piece(Open):
    """A piece of a recording, with what was answered before it."""

    def __init__(self, arrivals: Iterable[Arrival], past: Sequence[Past]) -> None:
        super().__init__(arrivals)
        self._past = past

    def past(self) -> Iterable[Past]:
        return self._past


def pieces(arrivals: Sequence[Arrival], count: int) -> list[list[Arrival]]:
    """The recording in `count` spans of equal length, each beginning at time 0; empty ones are left out."""
    span_s = (max((a.at_s for a in arrivals), default=0.0) or 1.0) / count
    found: list[list[Arrival]] = [[] for _ in range(count)]
    for arrival in arrivals:
        number = min(count - 1, int(arrival.at_s / span_s))
        found[number].append(replace(arrival, at_s=arrival.at_s - number * span_s))
    return [piece for piece in found if piece]


def workloads(parts: Sequence[Sequence[Arrival]]) -> list[Workload]:
    """Each piece as a workload that knows the answers of the pieces before it."""
    made = []
    latest: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        past = [(agent, model, tokens) for (agent, model), sizes in latest.items() for tokens in sizes]
        made.append(_workload(f"piece {number + 1}", part, past))
        for arrival in part:
            sizes = latest[arrival.agent, arrival.model]
            sizes.append(arrival.output_tokens)
            del sizes[:-PAST_OF_EACH]
    return made


def _workload(name: str, part: Sequence[Arrival], past: Sequence[Past]) -> Workload:
    def traffic(seed: int) -> Traffic:
        return _Piece(part, past)

    return Workload(name, traffic, max((arrival.at_s for arrival in part), default=0.0) + 1.0)
