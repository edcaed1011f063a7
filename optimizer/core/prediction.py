"""Estimates learned from what happened: load times and speeds (answer lengths: lengths.py).

Rule: declared figures only until measured, here or on another node (`peers`); then the median of the last few
(load and eviction times, which have outliers) or an exponential average (speeds, which drift). Everything the policy
measures in "swap times" comes from here, so it adapts to a backend that is 20 times faster.
Must not know: queues, slots, or what the estimates are used for.
"""

from collections import deque
from statistics import median

from optimizer.core.tiers import Catalogue, ModelSpec

EVICT_S = 0.7  # until measured (research/scheduling.md: unload 0.7 s)
UNKNOWN_LOAD_S = 5.0  # of a model that nobody declared
CONTENTION = 0.65  # share of its lone speed that each of two streams gets (research/scheduling.md)
RECENT = 5  # loads and evictions remembered per model
SMOOTHING = 0.2  # weight of the newest speed
SHORTEST_RUN_S = 1e-4  # no run is free: an order by cost needs costs above 0


class Estimates:
    """What is expected of each model, in seconds."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._specs = catalogue.models
        self._loads: dict[str, deque[float]] = {}
        self._evictions: dict[str, deque[float]] = {}
        self._load_s: dict[str, float] = {}  # medians, as they are asked for at every decision
        self._evict_s: dict[str, float] = {}
        self._prefill_s_per_token: dict[str, float] = {}
        self._decode_s_per_token: dict[str, float] = {}
        self._measured: set[tuple[str, str]] = set()  # (one of the above, model): measured here, not lent
        self.peers: list[Estimates] = []  # of other nodes: what they measure holds here until it is measured here

    def redeclare(self, catalogue: Catalogue) -> None:
        """The catalogue changed; measurements stay."""
        self._specs = catalogue.models

    def load_s(self, model: str) -> float:
        """Predicted time to bring `model` in, seconds."""
        if model in self._load_s:
            return self._load_s[model]
        spec = self._specs.get(model)
        return spec.load_s if spec else UNKNOWN_LOAD_S

    def evict_s(self, model: str) -> float:
        """Predicted time to put `model` out, seconds."""
        return self._evict_s.get(model, EVICT_S)

    def run_s(self, model: str, prompt_tokens: int, output_tokens: int) -> float:
        """Predicted time of one run beside another, seconds; never 0."""
        prefill, decode = self._seconds_per_token(model)
        return max(SHORTEST_RUN_S, prompt_tokens * prefill + output_tokens * decode)

    def observe_load(self, model: str, seconds: float) -> None:
        recent = self._loads.setdefault(model, deque(maxlen=RECENT))
        recent.append(seconds)
        self._lend("_load_s", model, median(recent))

    def observe_eviction(self, model: str, seconds: float) -> None:
        recent = self._evictions.setdefault(model, deque(maxlen=RECENT))
        recent.append(seconds)
        self._lend("_evict_s", model, median(recent))

    def observe_run(
        self, model: str, prompt_tokens: int, output_tokens: int, prefill_s: float, decode_s: float
    ) -> None:
        """A run ended. Durations of 0.0 were not reported and teach nothing."""
        if prompt_tokens and prefill_s > 0:
            self._blend("_prefill_s_per_token", model, prefill_s / prompt_tokens)
        if output_tokens and decode_s > 0:
            self._blend("_decode_s_per_token", model, decode_s / output_tokens)

    def _blend(self, table: str, model: str, value: float) -> None:
        known = getattr(self, table).get(model) if (table, model) in self._measured else None
        self._lend(table, model, value if known is None else known + SMOOTHING * (value - known))

    def _lend(self, table: str, model: str, value: float) -> None:
        """Measured here; peers that have not measured it themselves take it over."""
        self._measured.add((table, model))
        getattr(self, table)[model] = value
        for peer in self.peers:
            if (table, model) not in peer._measured:
                getattr(peer, table)[model] = value

    def _seconds_per_token(self, model: str) -> tuple[float, float]:
        spec = self._specs.get(model)
        prefill, decode = _declared(spec) if spec else (0.0, 0.0)
        return self._prefill_s_per_token.get(model, prefill), self._decode_s_per_token.get(model, decode)


def _declared(spec: ModelSpec) -> tuple[float, float]:
    return 1 / (spec.prefill_tps * CONTENTION), 1 / (spec.decode_tps * CONTENTION)
