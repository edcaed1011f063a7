"""The monitor: turns what happens in the engine into measured series (`FAMILIES` is the whole list).

Rule: only adds to memory; called on the event loop some ten times a request, so it must stay cheap. GPU work is
counted once, where it ran; answers are counted once per caller. Labels hold models, agents and fixed words, never a
prompt, a key or a client's text.
Must not know: where series are stored, how they are exposed, the database.
"""

from collections.abc import Callable

from optimizer.core import errors
from optimizer.core.forecast import View
from optimizer.core.metering import Family, Kind, Meter
from optimizer.core.state import Counters
from optimizer.ports import Finished, LoadReport, Record

MB = 1024.0 * 1024.0
NO_MODEL = "none"  # refused before a model was chosen

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
FAMILIES = (
    Family("requests_total", _C, "Ended requests, by how they ended.", ("model", "status")),
    Family("rejections_total", _C, "Requests that were refused, by reason.", ("reason",)),
    Family("request_duration_seconds", _H, "Arrival to the end of the answer, of answered requests.", ("model",)),
    Family("time_to_first_token_seconds", _H, "Arrival to the first piece of the answer.", ("model",)),
    Family("queue_wait_seconds", _H, "Arrival to the start of the generation, of what the cache missed.", ("model",)),
    Family("cache_requests_total", _C, "Answered requests by where the answer came from.", ("outcome",)),
    Family("tokens_saved_total", _C, "Tokens that no model had to read or write, by what saved them.", ("by",)),
    Family("prompt_tokens_total", _C, "Tokens read by a model.", ("model",)),
    Family("output_tokens_total", _C, "Tokens written by a model.", ("model",)),
    Family("decode_tokens_per_second", _H, "Speed of writing, one value a generation.", ("model",)),
    Family("prefill_tokens_per_second", _H, "Speed of reading, one value a generation.", ("model",)),
    Family("gpu_seconds_total", _C, "Seconds of work, by use: prefill and decode summed over slots, load.", ("use",)),
    Family("slot_seconds_total", _C, "Seconds that generations held a slot.", ("model",)),
    Family("agent_slot_seconds_total", _C, "Seconds that an agent's generations held a slot.", ("agent",), False),
    Family("agent_requests_total", _C, "What an agent asked; with its answers, the fairness.", ("agent",), False),
    Family("agent_answers_total", _C, "What an agent was answered.", ("agent",), False),
    Family("model_load_seconds", _H, "Time that a load took.", ("model",)),
    Family("model_load_failures_total", _C, "Loads that failed.", ("model",)),
    Family("model_evictions_total", _C, "Models put out of memory.", ("model",)),
    Family("model_switches_total", _C, "Swaps: one set of models made room for another.", ()),
    Family("backend_losses_total", _C, "Times that the backend died, or answered and generated nothing.", ()),
    Family("requests_waiting", _G, "Requests that wait for a slot.", ("model",)),
    Family("requests_running", _G, "Requests that run on a slot.", ("model",)),
    Family("oldest_wait_seconds", _G, "Age of the request that has waited longest.", ("model",)),
    Family("slots", _G, "Requests that may run at once.", ()),
    Family("vram_used_bytes", _G, "Memory that the loaded models are counted with.", ()),
    Family("vram_usable_bytes", _G, "Memory that models may take.", ()),
    Family("model_loaded_bytes", _G, "Memory that a loaded model is counted with.", ("model",)),
    Family("backend_up", _G, "1 while a model can be served.", ()),
)

_REASONS: dict[type[errors.NarrowgaugeError], str] = {
    errors.AgentLimit: "agent_limit",
    errors.SystemFull: "system_full",
    errors.DeadlineUnreachable: "deadline",
    errors.IntakePaused: "paused",
    errors.InvalidRequest: "invalid",
    errors.ModelNotFound: "model_not_found",
    errors.ContextOverflow: "context_overflow",
    errors.UnsupportedFeature: "unsupported",
}


class Monitor:
    """One engine's meter, fed by the journal."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.meter = Meter(FAMILIES)
        self._clock = wall_clock
        self._swaps_seen = 0

    def request_ended(self, record: Record, error: errors.NarrowgaugeError | None) -> None:
        """A caller has its answer, or its refusal."""
        meter, now, model = self.meter, self._clock(), record.model or NO_MODEL
        meter.add("requests_total", now, 1, model, record.status)
        meter.add("agent_requests_total", now, 1, record.agent)
        if record.status == "rejected":
            meter.add("rejections_total", now, 1, _REASONS.get(type(error), "other") if error else "other")
        if record.status != "replied":
            return
        meter.add("agent_answers_total", now, 1, record.agent)
        meter.add("request_duration_seconds", now, record.total_s, model)
        meter.add("time_to_first_token_seconds", now, record.ttft_s, model)
        meter.add("cache_requests_total", now, 1, record.cache or "off")
        if record.cache in ("exact", "semantic"):
            meter.add("tokens_saved_total", now, record.prompt_tokens + record.output_tokens, "cache")
            return
        meter.add("queue_wait_seconds", now, record.queue_s, model)
        if record.cache == "coalesced":
            meter.add("tokens_saved_total", now, record.prompt_tokens + record.output_tokens, "coalescing")
        elif record.prompt_tokens_original > record.prompt_tokens:
            meter.add("tokens_saved_total", now, record.prompt_tokens_original - record.prompt_tokens, "prompt")

    def generated(self, model: str, finished: Finished) -> None:
        """A generation ended whole."""
        meter, now = self.meter, self._clock()
        meter.add("prompt_tokens_total", now, finished.prompt_tokens, model)
        meter.add("output_tokens_total", now, finished.output_tokens, model)
        if finished.prefill_s > 0:
            meter.add("gpu_seconds_total", now, finished.prefill_s, "prefill")
            meter.add("prefill_tokens_per_second", now, finished.prompt_tokens / finished.prefill_s, model)
        if finished.decode_s > 0:
            meter.add("gpu_seconds_total", now, finished.decode_s, "decode")
            meter.add("decode_tokens_per_second", now, finished.output_tokens / finished.decode_s, model)

    def held_slot(self, model: str, agent: str, seconds: float) -> None:
        """A generation ended, however."""
        now = self._clock()
        self.meter.add("slot_seconds_total", now, seconds, model)
        self.meter.add("agent_slot_seconds_total", now, seconds, agent)

    def loaded(self, model: str, report: LoadReport | None) -> None:
        """A load ended; None when it failed."""
        now = self._clock()
        if report is None:
            self.meter.add("model_load_failures_total", now, 1, model)
            return
        self.meter.add("model_load_seconds", now, report.load_s, model)
        self.meter.add("gpu_seconds_total", now, report.load_s, "load")

    def evicted(self, model: str) -> None:
        self.meter.add("model_evictions_total", self._clock(), 1, model)

    def backend_lost(self) -> None:
        self.meter.add("backend_losses_total", self._clock(), 1)

    def sample(self, view: View) -> None:
        """Note the state of this moment: queues, slots, memory."""
        meter, now = self.meter, self._clock()
        for name in ("requests_waiting", "requests_running", "oldest_wait_seconds", "model_loaded_bytes"):
            meter.forget_gauges(name)  # of models that are no longer there
        for queue in view.queues:
            meter.gauge("requests_waiting", now, queue.waiting, queue.model)
            meter.gauge("requests_running", now, queue.running, queue.model)
            meter.gauge("oldest_wait_seconds", now, queue.oldest_age_s, queue.model)
        loaded: dict[str, float] = {}
        for resident in view.residents:  # a model may be on several nodes
            loaded[resident.model] = loaded.get(resident.model, 0.0) + resident.claim_mb
        for model, claim_mb in loaded.items():
            meter.gauge("model_loaded_bytes", now, claim_mb * MB, model)
        meter.gauge("slots", now, len(view.slots))
        meter.gauge("vram_used_bytes", now, view.used_mb * MB)
        meter.gauge("vram_usable_bytes", now, view.usable_mb * MB)
        meter.gauge("backend_up", now, 0.0 if view.lost else 1.0)
        self._count_swaps(view.counters, now)

    def _count_swaps(self, counters: Counters, now: float) -> None:
        new, self._swaps_seen = counters.swaps - self._swaps_seen, counters.swaps
        if new > 0:
            self.meter.add("model_switches_total", now, new)
