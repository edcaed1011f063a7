"""The journal: writes one Record per ended request, and keeps the last quarter of an hour for the screen.

Rule: every request that enters is written exactly once, with how it ended. Everything here only appends to
bounded memory; the record store buffers, nothing blocks the event loop.
Must not know: the database, the dashboard's format, or why a decision was taken.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from optimizer.core.errors import Cancelled, NarrowgaugeError, Refused, RequestError
from optimizer.core.request import Decision, Request
from optimizer.core.stats import Window
from optimizer.flight import Flight
from optimizer.monitor import Monitor
from optimizer.pipeline import Routed, transcript
from optimizer.ports import Completed, Delta, Finished, LoadReport, Record, RecordStore, Reply, Started
from optimizer.quotes import without_quotes

HORIZON_S = 900.0  # the timeline and the charts show a quarter of an hour
MOST_BARS = 4000
RUNS_MEASURED = 20  # runs of a model that its speeds are the median of
RUN = ("miss", "off")  # cache outcomes of requests that were generated for themselves
MOST_RECENT = 1000  # more than a flush of the record store leaves unwritten


@dataclass(slots=True)
class Bar:
    """Something that took time on the GPU, for the timeline. Monotonic seconds; `end` None while it lasts."""

    kind: str  # run | load | evict | lost
    model: str
    start: float
    end: float | None = None
    slot: int | None = None
    agent: str = ""
    failed: bool = False


@dataclass(slots=True)
class Measured:
    """What a model was last seen to take; None or empty until seen. Speeds in tokens per second, one a run."""

    load: LoadReport | None = None
    prefill_tps: deque[float] = field(default_factory=lambda: deque(maxlen=RUNS_MEASURED))
    decode_tps: deque[float] = field(default_factory=lambda: deque(maxlen=RUNS_MEASURED))

    @property
    def speeds(self) -> tuple[float | None, float | None]:
        """Medians of prefill and decode."""
        return tuple(median(values) if values else None for values in (self.prefill_tps, self.decode_tps))  # type: ignore[return-value]


@dataclass(slots=True)
class Entry:
    """One request on its way to its record."""

    journal: "Journal"
    request: Request
    arrived: float
    arrived_at: float  # wall clock
    routed: Routed | None = None
    flight: Flight | None = None
    joined: bool = False
    started: Started | None = None
    first_token: float | None = None
    completed: Completed | None = None
    error: NarrowgaugeError | None = None
    cached_text: list[str] = field(default_factory=list)

    def route(self, routed: Routed) -> None:
        self.routed = routed

    def board(self, flight: Flight, joined: bool) -> None:
        self.flight, self.joined = flight, joined

    def note(self, reply: Reply, now: float) -> None:
        if isinstance(reply, Started):
            self.started = reply
        elif isinstance(reply, Delta) and self.first_token is None:
            self.first_token = now
        elif isinstance(reply, Completed):
            self.completed = reply

    def fail(self, error: NarrowgaugeError) -> None:
        self.error = error

    def close(self, now: float) -> None:
        self.journal.write(self._record(now), now, self.error)

    @property
    def status(self) -> str:
        if self.completed is not None:
            return "replied"
        if isinstance(self.error, RequestError | Refused):
            return "rejected"
        if self.error is None or isinstance(self.error, Cancelled):
            return "cancelled"
        return "failed"

    @property
    def tokens_run(self) -> int:
        """Tokens read and written on the node for this request; 0 for one that others' work or the cache answered."""
        if self.completed is not None:
            ran = self.started is not None and self.started.cache in RUN
            return self.completed.prompt_tokens + self.completed.output_tokens if ran else 0
        if self.flight is None or self.joined or self.flight.started is None:
            return 0
        return self.flight.shaped.tokens_sent + self.flight.tokens

    def _record(self, now: float) -> Record:
        request, routed, shaped = self.request, self.routed, self.flight.shaped if self.flight else None
        started, completed = self.started, self.completed
        keep = self.journal.keeps_prompts(routed)
        decisions: tuple[Decision, ...] = ()
        for source in (routed, shaped, started, completed):
            decisions = source.decisions if source is not None and source.decisions else decisions
        return Record(
            id=request.id,
            agent=request.agent,
            protocol=request.protocol,
            kind=request.kind.value,
            wanted=request.wanted,
            model=routed.model if routed else "",
            tier=routed.selection.tier if routed else "",
            status=self.status,
            error=str(self.error) if self.error is not None else "",
            arrived_at=self.arrived_at,
            queue_s=started.queue_s if started else now - self.arrived,
            load_s=started.load_s if started else 0.0,
            prefill_s=completed.prefill_s if completed else 0.0,
            decode_s=completed.decode_s if completed else 0.0,
            ttft_s=self.first_token - self.arrived if self.first_token is not None else 0.0,
            total_s=now - self.arrived,
            prompt_tokens_original=shaped.tokens_original if shaped else 0,
            prompt_tokens=completed.prompt_tokens if completed else shaped.tokens_sent if shaped else 0,
            output_tokens=completed.output_tokens if completed else 0,
            cache=started.cache if started else "",
            complexity=routed.selection.complexity if routed else None,
            done_reason=completed.done_reason if completed else "",
            simulated=started.simulated if started else False,
            decisions=tuple(_plain(d) if keep else without_quotes(_plain(d)) for d in decisions),
            prompt_original=transcript(request.messages, request.inputs) if keep else "",
            prompt_sent=transcript(shaped.call.messages) if keep and shaped else "",
            answer=completed.text if keep and completed else "",
            good=self.flight.good if self.flight is not None and not self.joined else None,
        )


class Journal:
    """Where everything that happened goes: records to the store, bars and windows to the screen."""

    def __init__(self, records: RecordStore, wall_clock: Callable[[], float]) -> None:
        self._records = records
        self._wall_clock = wall_clock
        self.monitor = Monitor(wall_clock)
        self.store_prompts = True
        self.recent: deque[Record] = deque(maxlen=MOST_RECENT)
        self.bars: deque[Bar] = deque(maxlen=MOST_BARS)
        self.response_s: dict[str, Window] = {}  # by model
        self.ttft_s = Window(HORIZON_S)
        self.ended: dict[str, int] = {}  # by status, since start
        self.cache: dict[str, int] = {}  # by cache outcome, since start
        self.tokens_in = self.tokens_out = 0
        self.measured: dict[str, Measured] = {}  # by model
        self._open: dict[tuple[str, str, str], Bar] = {}  # by node, kind and model

    def open(self, request: Request, now: float) -> Entry:
        return Entry(self, request, now, self._wall_clock())

    @property
    def evictions_under_way(self) -> int:
        return sum(kind == "evict" for _, kind, _ in self._open)

    def find(self, request_id: str) -> Record | None:
        """A request that ended lately, which the database may not have yet."""
        return next((record for record in self.recent if record.id == request_id), None)

    def keeps_prompts(self, routed: Routed | None) -> bool:
        return self.store_prompts and routed is not None and routed.agent.store_prompts

    def write(self, record: Record, now: float, error: NarrowgaugeError | None = None) -> None:
        self.ended[record.status] = self.ended.get(record.status, 0) + 1
        self.recent.appendleft(record)
        if record.status == "replied":
            self.cache[record.cache] = self.cache.get(record.cache, 0) + 1
            self.response_s.setdefault(record.model, Window(HORIZON_S)).add(now, record.total_s)
            self.ttft_s.add(now, record.ttft_s)
            if record.cache in RUN:
                self.tokens_in += record.prompt_tokens
                self.tokens_out += record.output_tokens
        self.monitor.request_ended(record, error)
        self._records.save(record)

    # the timeline ------------------------------------------------------------------------------

    def loading(self, model: str, now: float, node: str) -> None:
        self._begin("load", model, now, node)

    def loaded(self, model: str, now: float, report: LoadReport | None, node: str) -> None:
        """A load ended; None when it failed."""
        if report is not None:
            self.measured.setdefault(model, Measured()).load = report
        self.monitor.loaded(model, report)
        self._finish("load", model, now, node, failed=report is None)

    def evicting(self, model: str, now: float, node: str) -> None:
        self._begin("evict", model, now, node)

    def evicted(self, model: str, now: float, node: str) -> None:
        self.monitor.evicted(model)
        self._finish("evict", model, now, node, failed=False)

    def finished(self, model: str, finished: Finished) -> None:
        """A generation ended whole; its speeds count where the backend reports durations."""
        self.monitor.generated(model, finished)
        measured = self.measured.setdefault(model, Measured())
        if finished.prefill_s > 0:
            measured.prefill_tps.append(finished.prompt_tokens / finished.prefill_s)
        if finished.decode_s > 0:
            measured.decode_tps.append(finished.output_tokens / finished.decode_s)

    def ran(self, flight: Flight, now: float, first_slot: int) -> None:
        """A generation ended, however; `first_slot` is its node's among all nodes'."""
        if flight.started is not None:
            job = flight.shaped.job
            slot = first_slot + (flight.slot or 0)
            self.bars.append(Bar("run", job.model, flight.started, now, slot, job.agent, not flight.ended))
            self.monitor.held_slot(job.model, job.agent, now - flight.started)

    def backend_lost(self, reason: str, now: float, node: str) -> None:
        self.monitor.backend_lost()
        for key, bar in list(self._open.items()):
            if key[0] == node:
                bar.end, bar.failed = now, True
                del self._open[key]
        self._begin("lost", reason, now, node)

    def backend_recovered(self, now: float, node: str) -> None:
        for (place, kind, name), bar in list(self._open.items()):
            if kind == "lost" and place == node:
                bar.end = now
                del self._open[place, kind, name]

    def _begin(self, kind: str, model: str, now: float, node: str) -> None:
        bar = Bar(kind, model, now)
        self._open[node, kind, model] = bar
        self.bars.append(bar)

    def _finish(self, kind: str, model: str, now: float, node: str, *, failed: bool) -> None:
        bar = self._open.pop((node, kind, model), None)
        if bar is not None:
            bar.end, bar.failed = now, failed


def _plain(decision: Decision) -> dict[str, Any]:
    """As the record keeps it. Not `asdict`: its deep copies were a third of what a cache hit costs."""
    return {
        "stage": decision.stage,
        "choice": decision.choice,
        "reason": decision.reason,
        "values": dict(decision.values),
    }
