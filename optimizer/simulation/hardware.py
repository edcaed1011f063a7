"""Other hardware to think of: what could be different of the machine that there is, one thing at a time.

Rule: pure; every what-if says what it takes for granted. Must not know: traffic beyond the models it uses, or what a
what-if would gain.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from zlib import crc32

from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import Catalogue, ModelSpec, Residency
from optimizer.simulation.workload import Arrival

CARDS_MB = (6144, 8192, 12_288, 16_384, 24_576, 32_768, 49_152)  # sizes that cards are sold with
RAM_LOAD_SHARE = 0.3  # of the load time, when the file is in RAM (docs/simulation.md)
LEAST_QUANTISED = 0.6  # of a model's size now: about from 4 to 2.5 bits a weight; below it answers fall apart
STEP_MB = 10  # a quantisation's size is rounded down to this
MOST_SLOTS = 16  # as for an admin
MOST_SPLIT = 4  # models; with more, only one at a time is thought to move to another node


@dataclass(frozen=True, slots=True)
class CpuSpeed:
    """A model on the CPU, relative to the GPU. Ours: a 7B at 4 bits on a desktop's memory bandwidth."""

    prefill_share: float = 0.06
    decode_share: float = 0.2


USUAL_CPU = CpuSpeed()


@dataclass(frozen=True, slots=True)
class Site:
    """A place where models run."""

    thresholds: Thresholds
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Other hardware: its sites, and which of them a request goes to. With `best_of` the best of its kind counts."""

    kind: str  # vram | slots | ram | quantisation | cpu | node
    claim: str  # begins a sentence
    sites: Sequence[Site]
    assumed: str
    place: Callable[[Arrival], int] = lambda arrival: 0
    best_of: bool = False


def what_ifs(
    used: Sequence[ModelSpec], thresholds: Thresholds, catalogue: Catalogue, cpu: CpuSpeed
) -> Iterator[WhatIf]:
    """What is worth a replay, with the models that the traffic `used`."""
    yield from _vram(used, thresholds, catalogue)
    for slots in sorted({min(MOST_SLOTS, more) for more in (thresholds.slots + 1, thresholds.slots * 2)}):
        if slots <= thresholds.slots:
            continue
        more = Site(changed(thresholds, {"slots": slots}), catalogue)
        assumed = "a further slot takes no further memory; together the slots are as fast as two"
        yield WhatIf("slots", f"{slots} slots instead of {thresholds.slots}", (more,), assumed)
    faster = {name: replace(spec, load_s=spec.load_s * RAM_LOAD_SHARE) for name, spec in catalogue.models.items()}
    assumed = f"a load from RAM takes {RAM_LOAD_SHARE:.0%} of the time; less is gained where files are cached already"
    yield WhatIf("ram", "model files kept in RAM", (Site(thresholds, Catalogue(catalogue.tiers, faster)),), assumed)
    yield from _quantisations(used, thresholds, catalogue)
    if len(used) > 1:
        for spec in used:
            yield _on_cpu(spec, thresholds, catalogue, cpu)
    yield from _another_node(used, thresholds, catalogue)


def _vram(used: Sequence[ModelSpec], thresholds: Thresholds, catalogue: Catalogue) -> Iterator[WhatIf]:
    """Larger cards, up to the first that holds every model at once."""
    for memory_mb in CARDS_MB:
        if memory_mb <= thresholds.gpu_memory_mb:
            continue
        larger = changed(thresholds, {"gpu_memory_mb": memory_mb})
        claim = f"a card of {memory_mb} MB instead of {thresholds.gpu_memory_mb}"
        yield WhatIf("vram", claim, (Site(larger, catalogue),), "it is as fast as the present one")
        if sum(spec.footprint_mb for spec in used) <= larger.usable_mb:
            return


def _quantisations(used: Sequence[ModelSpec], thresholds: Thresholds, catalogue: Catalogue) -> Iterator[WhatIf]:
    """For each model, the largest sizes at which it would fit beside others that it now pushes out."""
    for spec in used:
        others = [other for other in used if other is not spec]
        for beside in (group for size in range(1, len(others) + 1) for group in combinations(others, size)):
            size_mb = int((thresholds.usable_mb - sum(other.footprint_mb for other in beside)) // STEP_MB) * STEP_MB
            if not LEAST_QUANTISED * spec.footprint_mb <= size_mb < spec.footprint_mb:
                continue
            share = size_mb / spec.footprint_mb
            smaller = replace(spec, footprint_mb=size_mb, load_s=spec.load_s * share)
            yield WhatIf(
                "quantisation",
                f"a {spec.name} quantisation of at most {size_mb} MB would fit beside {_named(beside)}",
                (Site(thresholds, _with(catalogue, smaller)),),
                f"it loads in {share:.0%} of the time, generates as fast and answers as well",
            )


def _on_cpu(spec: ModelSpec, thresholds: Thresholds, catalogue: Catalogue, cpu: CpuSpeed) -> WhatIf:
    slower = replace(
        spec,
        prefill_tps=spec.prefill_tps * cpu.prefill_share,
        decode_tps=spec.decode_tps * cpu.decode_share,
        residency=Residency.ALWAYS,
    )
    memory_mb = math.ceil(spec.footprint_mb / thresholds.gpu_headroom)
    processor = changed(thresholds, {"gpu_memory_mb": memory_mb, "slots": 1})
    return WhatIf(
        "cpu",
        f"{spec.name} on the CPU",
        (Site(thresholds, _without(catalogue, {spec.name})), Site(processor, _only(catalogue, slower))),
        f"it reads at {cpu.prefill_share:.0%} and writes at {cpu.decode_share:.0%} of the GPU's speed, one at a time",
        lambda arrival: int(arrival.model == spec.name),
    )


def _another_node(used: Sequence[ModelSpec], thresholds: Thresholds, catalogue: Catalogue) -> Iterator[WhatIf]:
    """The same machine once more: some models there, or half of the agents."""
    assumed = "it is like this one; requests are divided once and for all, which a balancer betters"
    sizes = range(1, len(used)) if len(used) <= MOST_SPLIT else (1,)
    seen: set[frozenset[str]] = set()
    for group in (group for size in sizes for group in combinations(used, size)):
        there = frozenset(spec.name for spec in group)
        here = frozenset(spec.name for spec in used) - there
        if here in seen:
            continue
        seen.add(there)
        yield WhatIf(
            "node",
            f"another node for {_named(group)}",
            (Site(thresholds, _without(catalogue, there)), Site(thresholds, _without(catalogue, here))),
            assumed,
            lambda arrival, there=there: int(arrival.model in there),  # type: ignore[misc]
            best_of=True,
        )
    both = Site(thresholds, catalogue)
    yield WhatIf(
        "node",
        "another node for half of the agents",
        (both, both),
        assumed,
        lambda a: crc32(a.agent.encode()) % 2,
        True,
    )


def _with(catalogue: Catalogue, spec: ModelSpec) -> Catalogue:
    return Catalogue(catalogue.tiers, {**catalogue.models, spec.name: spec})


def _only(catalogue: Catalogue, spec: ModelSpec) -> Catalogue:
    return Catalogue(catalogue.tiers, {spec.name: spec})


def _without(catalogue: Catalogue, names: frozenset[str] | set[str]) -> Catalogue:
    return Catalogue(catalogue.tiers, {name: spec for name, spec in catalogue.models.items() if name not in names})


def _named(specs: Sequence[ModelSpec]) -> str:
    return " and ".join(spec.name for spec in specs)
