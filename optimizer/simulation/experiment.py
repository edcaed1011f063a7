"""Policies side by side: every policy meets the same requests of the same seeds.

Rule: `run` is the whole simulation as one pure function; everything else here is loops and names. The tuner
replays recorded traffic through it. Must not know: how results are shown.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from optimizer.core.errors import ConfigurationError
from optimizer.core.fleet import Fleet
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.machine import MachineModel
from optimizer.simulation.answers import Answers
from optimizer.simulation.bound import Task, makespan_bound
from optimizer.simulation.history import History
from optimizer.simulation.metrics import Summary, average
from optimizer.simulation.ollama import Ollama
from optimizer.simulation.rivals import Fifo, LlamaSwap, Shortest
from optimizer.simulation.workload import Workload
from optimizer.simulation.world import FleetPolicy, Policy, World

STEADY, OLLAMA = "steady", "ollama"
MOST_NODES = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy is built from."""

    thresholds: Thresholds
    catalogue: Catalogue
    machine: MachineModel


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy by name, and how it meets the machine."""

    name: str
    about: str
    build: Callable[[Setting], Policy | FleetPolicy]
    slots_per_model: bool = False
    coalesces: bool = False
    caches: bool = False
    nodes: tuple[str, ...] = ()  # of a fleet; () is one node without a name


def _gateway(kind: type[Fifo] | type[LlamaSwap]) -> Callable[[Setting], Policy]:
    return lambda s: kind(s.machine.specs, s.machine.usable_mb, s.thresholds.slots)


def _ollama(setting: Setting) -> Policy:
    machine = setting.machine
    footprints_mb = {model: machine.footprint_mb(model) for model in machine.specs}
    return Ollama(footprints_mb, machine.usable_mb, parallel=setting.thresholds.slots)


CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            STEADY,
            "Narrowgauge's scheduler, the object that runs in production",
            lambda s: Scheduler(s.thresholds, s.catalogue),
            coalesces=True,
            caches=True,
        ),
        Contender(OLLAMA, "Ollama alone: its own queue, NUM_PARALLEL = slots", _ollama, slots_per_model=True),
        Contender("fifo", "a gateway with one queue in order of arrival", _gateway(Fifo)),
        Contender("llama-swap", "llama-swap's queue, collated per model", _gateway(LlamaSwap), slots_per_model=True),
        Contender("shortest", "a gateway that takes the shortest predicted first", _gateway(Shortest)),
    )
}


def on_nodes(count: int) -> str:
    """The name of our scheduler on so many nodes; `contender` knows it."""
    return STEADY if count == 1 else f"{STEADY}*{count}"


def contender(name: str) -> Contender:
    """A policy by name; `steady*4` is ours on four nodes. Raises ConfigurationError for an unknown one."""
    policy, _, count = name.partition("*")
    if policy == STEADY and count.isdecimal() and 2 <= int(count) <= MOST_NODES:
        nodes = tuple(f"node-{number + 1}" for number in range(int(count)))
        return replace(
            CONTENDERS[STEADY],
            name=name,
            about=f"Narrowgauge on {count} nodes",
            build=lambda s: Fleet(dict.fromkeys(nodes, s.thresholds), s.catalogue),
            nodes=nodes,
        )
    if name not in CONTENDERS:
        raise ConfigurationError(f"no policy '{name}' (known: {', '.join(CONTENDERS)})")
    return CONTENDERS[name]


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one policy. `bound_s` is the least makespan that any policy could reach on one node (0.0 in closed
    loops and on several nodes)."""

    policy: str
    seed: int
    summary: Summary
    history: History
    bound_s: float


def run(
    policy: str | Contender,
    workload: Workload,
    machine: MachineModel,
    seed: int,
    thresholds: Thresholds,
    catalogue: Catalogue,
    answers: Answers | None = None,
) -> Result:
    """Run one policy through one workload of one seed; `answers` is what the cache holds at the start.

    Raises Impossible when the policy breaks a rule.
    """
    chosen = contender(policy) if isinstance(policy, str) else policy
    world = World(
        chosen.build(Setting(thresholds, catalogue, machine)),
        workload.traffic(seed),
        machine,
        catalogue,
        slots=thresholds.slots,
        slots_per_model=chosen.slots_per_model,
        coalesce=chosen.coalesces and thresholds.coalesce,
        answers=(answers or cache_of(thresholds)) if chosen.caches else None,
        nodes=chosen.nodes,
    )
    history = world.run()
    bound_s = 0.0 if chosen.nodes else _bound_s(workload, machine, seed, thresholds.slots)
    return Result(chosen.name, seed, Summary.of(history), history, bound_s)


def cache_of(thresholds: Thresholds) -> Answers:
    """An empty cache of that setting."""
    return Answers(thresholds.cache_ttl_s if thresholds.cache_enabled else 0.0, thresholds.cache_max_entries)


def _bound_s(workload: Workload, machine: MachineModel, seed: int, slots: int) -> float:
    """Of a gateway with `slots` on the node; 0.0 unless everything arrives at time 0."""
    if workload.horizon_s > 0:
        return 0.0
    arrivals = workload.traffic(seed).first()
    return makespan_bound(machine, (Task(a.model, a.prompt_tokens, a.output_tokens) for a in arrivals), slots)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of an experiment, and each policy's mean figures over the seeds."""

    workload: str
    results: Mapping[str, Sequence[Result]]  # by policy, in order of seeds
    means: Mapping[str, Summary]
    bound_s: float  # mean over seeds; 0.0 when there is none for every policy
    reference: str = OLLAMA  # what the others are held against, if it takes part


def compare(
    policies: Sequence[str],
    workload: Workload,
    machine: MachineModel,
    seeds: Sequence[int],
    thresholds: Thresholds,
    catalogue: Catalogue,
    progress: Callable[[str, int, int], None] = lambda policy, done, total: None,
    reference: str = OLLAMA,
) -> Comparison:
    """Run every policy over every seed, one after the other. `progress(policy, done, total)` is called after each."""
    results: dict[str, list[Result]] = {name: [] for name in policies}
    total = len(policies) * len(seeds)
    for seed in seeds:
        for name in policies:
            results[name].append(run(name, workload, machine, seed, thresholds, catalogue))
            progress(name, sum(map(len, results.values())), total)
    means = {name: average([result.summary for result in runs]) for name, runs in results.items()}
    bounds = [result.bound_s for result in next(iter(results.values()), [])]
    if not all(result.bound_s for some in results.values() for result in some):
        bounds = []
    return Comparison(workload.name, results, means, sum(bounds) / len(bounds) if bounds else 0.0, reference)


def ratio(mine: float, theirs: float, higher_is_better: bool) -> float | None:
    """How many times better `mine` is; None when a figure is 0."""
    if not mine or not theirs:
        return None
    return mine / theirs if higher_is_better else theirs / mine


def machine_for(
    thresholds: Thresholds, catalogue: Catalogue, load_scale: float = 1.0, models: Iterable[str] = ()
) -> MachineModel:
    """The modelled machine that thresholds and catalogue describe; `models` restricts what it has (all by default)."""
    chosen = set(models) or set(catalogue.models)
    specs = {name: spec for name, spec in catalogue.models.items() if name in chosen}
    return MachineModel(usable_mb=thresholds.usable_mb, specs=specs, load_scale=load_scale)
