"""Narrowgauge's own headers: the strategy's task hints on a request, the decisions on an answer.

Rule: a hint that cannot be read is refused with its header's name, never guessed; no header is needed for anything.
Must not know: bodies, routes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.wire.http import Exchange, header_value
from optimizer.core.errors import InvalidRequest
from optimizer.core.request import Decision, Priority, Task
from optimizer.ports import Started, Waiting

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_TEMPLATE = re.compile(r"(code|list|json)(?::([A-Za-z0-9+#_.-]{1,32}))?")
_CONVERSATION = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,127}")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,12})?")

MAX_REASONING_STEPS = 1000
MAX_EXPECTED_LINES = 1_000_000
MAX_DEADLINE_S = 86_400.0


_NO_TASK = Task()


@dataclass(frozen=True, slots=True)
class Hints:
    """What the headers of a request say about it."""

    task: Task = _NO_TASK
    priority: Priority | None = None
    deadline_s: float | None = None
    conversation: str = ""
    cache_read: bool = True
    cache_write: bool = True


def _bad(name: str, must: str) -> InvalidRequest:
    return InvalidRequest(f"the header {name} must {must}", param=name)


def _match(exchange: Exchange, name: str, pattern: re.Pattern[str], must: str) -> re.Match[str] | None:
    value = exchange.header(name.lower().encode()).strip()
    if not value:
        return None
    match = pattern.fullmatch(value)
    if match is None:
        raise _bad(name, must)
    return match


def _number(exchange: Exchange, name: str, low: float, high: float, unit: str = "") -> float | None:
    must = f"be a number from {low:g} to {high:g}{unit}"
    match = _match(exchange, name, _NUMBER, must)
    if match is None:
        return None
    number = float(match[0])
    if not low <= number <= high:
        raise _bad(name, must)
    return number


def _whole(exchange: Exchange, name: str, high: int) -> int | None:
    number = _number(exchange, name, 0, high)
    if number is not None and number != int(number):
        raise _bad(name, "be a whole number")
    return None if number is None else int(number)


def read_hints(exchange: Exchange) -> Hints:
    """The request's hints. Raises InvalidRequest with the header's name."""
    cache_control = exchange.header(b"cache-control").lower()
    directives = {part.strip() for part in cache_control.split(",")} if cache_control else set()
    read, write = "no-cache" not in directives, "no-store" not in directives
    if not any(name.startswith(b"x-narrowgauge-") for name in exchange.headers):
        return Hints(cache_read=read, cache_write=write)

    task_type = _match(exchange, "X-Narrowgauge-Task-Type", _WORD, "be a short word such as code_generation")
    template = _match(exchange, "X-Narrowgauge-Template", _TEMPLATE, "be code, code:LANGUAGE, list or json")
    priority_names = {p.name.lower(): p for p in Priority}
    priority_must = f"be one of {', '.join(priority_names)}"
    priority = _match(exchange, "X-Narrowgauge-Priority", _WORD, priority_must)
    if priority and priority[0].lower() not in priority_names:
        raise _bad("X-Narrowgauge-Priority", priority_must)
    deadline_s = _number(exchange, "X-Narrowgauge-Deadline", 0, MAX_DEADLINE_S, " seconds")
    if deadline_s == 0:
        raise _bad("X-Narrowgauge-Deadline", "be more than 0 seconds")
    conversation = _match(exchange, "X-Narrowgauge-Conversation", _CONVERSATION, "be at most 128 ASCII characters")
    task = Task(
        task_type=task_type[0] if task_type else "",
        reasoning_steps=_whole(exchange, "X-Narrowgauge-Reasoning-Steps", MAX_REASONING_STEPS),
        expected_lines=_whole(exchange, "X-Narrowgauge-Expected-Lines", MAX_EXPECTED_LINES),
        expertise_level=_number(exchange, "X-Narrowgauge-Expertise", 0, 1),
        template=template[1] if template else "",
        language=(template[2] or "") if template else "",
    )
    return Hints(
        task=task,
        priority=priority_names[priority[0].lower()] if priority else None,
        deadline_s=deadline_s,
        conversation=conversation[0] if conversation else "",
        cache_read=read,
        cache_write=write,
    )


def _seconds(value: float) -> bytes:
    return f"{value if math.isfinite(value) else 0.0:.3f}".encode()


def short_reason(decisions: Sequence[Decision]) -> str:
    """The reason for the model, the decision people ask about first; else the last decision's."""
    for decision in decisions:
        if decision.stage == "selection":
            return decision.reason
    return decisions[-1].reason if decisions else ""


def started_headers(started: Started) -> list[tuple[bytes, bytes]]:
    """What was decided, for the answer's headers."""
    headers = [
        (b"x-narrowgauge-model", header_value(started.model)),
        (b"x-narrowgauge-tier", header_value(started.tier)),
        (b"x-narrowgauge-cache", header_value(started.cache)),
        (b"x-narrowgauge-queue-seconds", _seconds(started.queue_s)),
        (b"x-narrowgauge-load-seconds", _seconds(started.load_s)),
        (b"x-narrowgauge-tokens-saved", str(started.tokens_saved).encode()),
    ]
    if started.complexity is not None:
        headers.append((b"x-narrowgauge-complexity", _seconds(started.complexity)))
    if started.simulated:
        headers.append((b"x-narrowgauge-simulated", b"true"))
    if reason := header_value(short_reason(started.decisions)):
        headers.append((b"x-narrowgauge-decision", reason))
    if cut := header_value(what_was_cut(started.decisions)):
        headers.append((b"x-narrowgauge-truncated", cut))
    return headers


def what_was_cut(decisions: Sequence[Decision]) -> str:
    """What of the prompt the model does not see, in words; "" when it sees all of it."""
    cut: list[str] = []
    for decision in decisions:
        if decision.stage == "compression":
            cut += decision.values.get("truncated", [])
        elif decision.stage == "context" and (decision.values.get("dropped") or decision.values.get("summarised")):
            cut.append(decision.reason)
    return "; ".join(cut)


def waiting_headers(waiting: Waiting | None, simulated: bool) -> list[tuple[bytes, bytes]]:
    """Where the request stands, for headers that must go out before its answer begins."""
    headers = [(b"x-narrowgauge-simulated", b"true")] if simulated else []
    if waiting is not None:
        headers += [
            (b"x-narrowgauge-queue-position", str(waiting.position).encode()),
            (b"x-narrowgauge-eta-seconds", _seconds(waiting.eta_s)),
        ]
    return headers
