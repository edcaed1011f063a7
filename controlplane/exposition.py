"""`GET /metrics`: the engine's measured series in Prometheus' text format, as a bare ASGI application.

Rule: answered to this machine without a key, to others with a live key of any scope. "This machine" is a loopback
peer that names a loopback host and no proxy: a reverse proxy beside us, or a web page that points a name at
127.0.0.1, does not count. Reads memory only.
Must not know: what is measured (optimizer/monitor.py).
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controlplane import VERSION
from controlplane.wire.auth import authenticate
from controlplane.wire.errors import HttpError
from controlplane.wire.http import Headers, merged_headers
from optimizer.core.errors import BackendUnavailable
from optimizer.core.metering import Distribution, Family, Kind, Labels, Meter, upper_bound

if TYPE_CHECKING:
    from controlplane.front import Front
    from controlplane.stores import RecordBuffer
    from controlplane.task_runner import TaskRunner
    from optimizer.runner import Runner

PATH = "/metrics"
PREFIX = "narrowgauge_"
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# Powers of two are exact bounds of the meter's buckets: 1/64 s to 1024 s, and 1 to 8192 of anything else.
SECONDS = [2.0**power for power in range(-6, 11)]
OTHERS = [2.0**power for power in range(14)]
_PROXIED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
_HERE = ("localhost", "127.0.0.1", "[::1]")


class Metrics:
    """ASGI application of one path."""

    def __init__(self, service: "Front") -> None:
        self._service = service

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        status, kind, headers, body = await self._answer(scope)
        fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Mapping[str, Any]) -> tuple[int, bytes, Headers, bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, b"text/plain", [(b"allow", b"GET, HEAD")], b"use GET\n"
        headers = merged_headers(scope["headers"])
        try:
            if not from_here(scope.get("client"), headers):
                authenticate(headers.get(b"authorization", b"").decode("latin-1"), self._service.agent_for)
            answer = await self._service.desk.metrics()
        except HttpError as error:
            return error.problem.status, b"text/plain", error.problem.headers, f"{error}\n".encode()
        except BackendUnavailable as error:
            return 503, b"text/plain", [(b"retry-after", b"2")], f"{error}\n".encode()
        return 200, CONTENT_TYPE, [], answer.encode()


def of_engine(runner: "Runner", records: "RecordBuffer", tasks: "TaskRunner") -> str:
    """The whole exposition of one engine."""
    meter = runner.journal.monitor.meter
    extra: dict[str, Mapping[Labels, float]] = {
        "records_dropped_total": {(): float(records.dropped)},
        "records_waiting": {(): float(len(records))},
        "metric_points_lost_total": {(): float(meter.lost)},
        "durable_tasks_waiting": {(): float(tasks.waiting)},
        "durable_tasks_running": {(): float(tasks.in_flight)},
        "durable_tasks_ended_total": {(("status", status),): float(count) for status, count in tasks.ended.items()},
        "durable_tasks_put_back_total": {(): float(tasks.put_back)},
    }
    return text(meter, runner.backend_name, extra)


def from_here(client: tuple[str, int] | list[Any] | None, headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request comes from this very machine, and says so."""
    if not client or any(name in headers for name in _PROXIED):
        return False
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(client[0]).is_loopback and name in _HERE
    except ValueError:
        return False  # a socket file, or no address at all


OWN = (
    Family("records_dropped_total", Kind.COUNTER, "Request records that could not be stored."),
    Family("records_waiting", Kind.GAUGE, "Request records that wait to be stored; many when the database is away."),
    Family("metric_points_lost_total", Kind.COUNTER, "Minutes of series that could not be stored."),
    Family("durable_tasks_waiting", Kind.GAUGE, "Durable tasks that nobody works on yet, looked at every 2 s."),
    Family("durable_tasks_running", Kind.GAUGE, "Durable tasks that this engine has before it."),
    Family("durable_tasks_ended_total", Kind.COUNTER, "Durable tasks whose end this engine stored.", ("status",)),
    Family("durable_tasks_put_back_total", Kind.COUNTER, "Tries of durable tasks that came to nothing."),
)


def text(meter: Meter, backend: str, extra: Mapping[str, Mapping[Labels, float]]) -> str:
    """The whole exposition; `extra` are this process's own series (`OWN`), by labels."""
    lines = [*_head("build_info", "gauge", "1; the version and the backend in its labels.")]
    lines.append(_line("build_info", (("version", VERSION), ("backend", backend)), 1))
    for family in OWN:
        lines += _head(family.name, family.kind.value, family.help)
        lines += [_line(family.name, labels, value) for labels, value in extra[family.name].items()]
    for family in meter.families.values():
        lines += _head(family.name, family.kind.value, family.help)
        lines += _series(meter, family)
    return "\n".join(lines) + "\n"


def _series(meter: Meter, family: Family) -> Iterator[str]:
    totals = meter.totals(family.name)
    if family.kind is Kind.GAUGE:
        for labels, value in meter.gauges[family.name].items():
            yield _line(family.name, labels, value)
    elif family.kind is Kind.COUNTER:
        for labels, seen in (totals or ({} if family.labels else {(): Distribution()})).items():
            yield _line(family.name, labels, seen.total)
    else:
        for labels, seen in totals.items():
            yield from _histogram(family.name, labels, seen)


def _histogram(name: str, labels: Labels, seen: Distribution) -> Iterator[str]:
    buckets = sorted(seen.buckets.items())
    count = place = 0
    for bound in SECONDS if name.endswith("_seconds") else OTHERS:
        while place < len(buckets) and upper_bound(buckets[place][0]) <= bound:
            count += buckets[place][1]
            place += 1
        yield _line(f"{name}_bucket", (*labels, ("le", f"{bound:g}")), count)
    yield _line(f"{name}_bucket", (*labels, ("le", "+Inf")), seen.count)
    yield _line(f"{name}_sum", labels, seen.total)
    yield _line(f"{name}_count", labels, seen.count)


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {about}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{PREFIX}{name}{{{shown}}} {value!r}" if shown else f"{PREFIX}{name} {value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
