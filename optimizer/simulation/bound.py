"""A proven lower bound on the makespan: no policy on this machine can end sooner.

Rule: only facts of the machine model enter, no property of a policy. Must not know: policies.

The proof. (1) Work. Let P and D be the seconds that all prefills and all decodes would take alone, one after the
other. At any moment k runs prefill, each working off 1 s of P per second, and the others decode, together working
off at most f s of D per second. So P and D need at least the value of a small linear program over the modes (k, f);
by duality, every (u, v) >= 0 with u k + v f <= 1 in all modes proves `time >= u P + v D`, and we take the best
vertex. With two slots the modes are (2, 0), (1, 1), (0, 1.3): P + (D - P) / 1.3 when D >= P.
(2) Dead time. Call a model solitary if it fits beside no other model with work. While a solitary model is being
loaded nothing can run, because whatever ran would have to be resident beside it. All other models together form
one class: when its first member is loaded into a memory that holds none of them, nothing runs either (at the start
nothing is resident, and later only a solitary model was, which must be gone). Between two classes the last
resident of the first has to be evicted while nothing runs. These times are disjoint from each other and from (1).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from optimizer.machine import MachineModel


@dataclass(frozen=True, slots=True)
class Task:
    """One request's work."""

    model: str
    prompt_tokens: int
    output_tokens: int


def makespan_bound(machine: MachineModel, tasks: Iterable[Task], slots: int, slots_per_model: bool = False) -> float:
    """Seconds that any policy needs for `tasks` from an empty machine, all known at time 0.

    `slots` limits the runs on the node, or on each model when `slots_per_model` (Ollama's NUM_PARALLEL).
    """
    tasks = list(tasks)
    models = sorted({task.model for task in tasks})
    if not models:
        return 0.0
    together = _most_together(machine, models)
    prefill_s = sum(_prefill_s(machine, task.model, task.prompt_tokens) for task in tasks)
    decode_s = sum(_decode_s(machine, task.model, task.output_tokens) for task in tasks)
    streams = slots * together if slots_per_model else slots
    work_s = work_bound_s(machine, prefill_s, decode_s, streams, together)
    return work_s + _dead_s(machine, models)


def work_bound_s(machine: MachineModel, prefill_s: float, decode_s: float, streams: int, models: int) -> float:
    """Seconds that `prefill_s` and `decode_s` of work need with at most `streams` runs over `models` models."""
    modes = [(k, _decode_rate(machine, streams - k, models)) for k in range(streams + 1)]
    corners = [(1.0 / max(k for k, _ in modes), 0.0), (0.0, 1.0 / max(f for _, f in modes))]
    for (k1, f1), (k2, f2) in combinations(modes, 2):
        det = k1 * f2 - k2 * f1
        if abs(det) > 1e-12:
            corners.append(((f2 - f1) / det, (k1 - k2) / det))
    feasible = [(u, v) for u, v in corners if u >= 0 and v >= 0 and all(u * k + v * f <= 1 + 1e-9 for k, f in modes)]
    return max(u * prefill_s + v * decode_s for u, v in feasible)


def seconds_per_request(machine: MachineModel, model: str, prompt_tokens: float, output_tokens: float) -> float:
    """GPU seconds that a request of one model costs when two runs of that model always share the GPU."""
    prefill_s, decode_s = _prefill_s(machine, model, prompt_tokens), _decode_s(machine, model, output_tokens)
    return work_bound_s(machine, prefill_s, decode_s, streams=2, models=1)


def _prefill_s(machine: MachineModel, model: str, tokens: float) -> float:
    return tokens / machine.specs[model].prefill_tps


def _decode_s(machine: MachineModel, model: str, tokens: float) -> float:
    return tokens / machine.specs[model].decode_tps


def _decode_rate(machine: MachineModel, streams: int, models: int) -> float:
    """Alone-seconds of decoding that `streams` runs work off per second, at most: each model at its best count."""
    return max(
        (
            active * max(n * machine.decode_share(n, active) for n in range(1, streams - active + 2))
            for active in range(1, min(streams, models) + 1)
        ),
        default=0.0,
    )


def _most_together(machine: MachineModel, models: list[str]) -> int:
    """How many of `models` can be resident at once."""
    count, used_mb = 0, 0.0
    for footprint_mb in sorted(machine.footprint_mb(model) for model in models):
        used_mb += footprint_mb
        if used_mb > machine.usable_mb:
            break
        count += 1
    return max(count, 1)


def _dead_s(machine: MachineModel, models: list[str]) -> float:
    solitary = [
        model
        for model in models
        if not any(
            machine.footprint_mb(model) + machine.footprint_mb(other) <= machine.usable_mb
            for other in models
            if other != model
        )
    ]
    others = [model for model in models if model not in solitary]
    classes = len(solitary) + bool(others)
    loads_s = sum(machine.load_s(model) for model in solitary)
    loads_s += min((machine.load_s(model) for model in others), default=0.0)
    return loads_s + (classes - 1) * machine.unload_s
