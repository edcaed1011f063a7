"""From options to an experiment: the workload, the machine and the thresholds that a user asked for.

Rule: every wrong option is a ConfigurationError that says what to change. Must not know: command lines or files.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE, STRATEGY_TIERS, Catalogue, ModelSpec, Residency, catalogue
from optimizer.machine import MachineModel
from optimizer.simulation import workload as kinds
from optimizer.simulation.experiment import machine_for
from optimizer.simulation.workload import Agents, Group, Workload, strategy_agents

WORKLOADS = ("closed", "poisson", "bursts", "at-once", "overload", "starvation", "saturated")
DEFAULT_LOAD = 0.8
SATURATED = 20  # requests of every agent, all there from the start
OVERLOAD = 1.2  # default load of the overload workload


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose; the defaults are the machine and the agents of scheduling.md."""

    workload: str = "closed"
    traffic: Sequence[str] | None = None  # JSON lines instead of a named workload
    load: float | None = None
    hours: float = 4.0
    think_s: float = kinds.THINK_S
    vram_mb: int | None = None
    slots: int | None = None
    load_scale: float = 1.0
    models: Sequence[Mapping[str, Any]] = ()
    thresholds: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `compare` needs."""

    workload: Workload
    machine: MachineModel
    thresholds: Thresholds
    catalogue: Catalogue


def plan(options: Options, base: Thresholds | None = None) -> Plan:
    """The experiment that `options` describe. Raises ConfigurationError."""
    if not 0 < options.hours <= 1000:
        raise ConfigurationError("hours must be above 0 and at most 1000")
    if not options.load_scale > 0:
        raise ConfigurationError("the load-time factor must be above 0")
    named = {"gpu_memory_mb": options.vram_mb, "slots": options.slots}
    changes = {**options.thresholds, **{name: value for name, value in named.items() if value is not None}}
    thresholds = changed(base or Thresholds(), changes)
    agents = agents_of(options.models)
    machine = machine_for(thresholds, agents.catalogue, options.load_scale)
    too_large = [g.model for g in agents.groups if machine.footprint_mb(g.model) > machine.usable_mb]
    if too_large:
        raise ConfigurationError(
            f"{', '.join(too_large)} cannot fit into {machine.usable_mb:.0f} MB of usable VRAM (memory x headroom)"
        )
    if options.traffic is not None:
        workload = kinds.recorded(kinds.from_jsonl(options.traffic, agents.catalogue))
    else:
        workload = _named(options, agents, machine)
    return Plan(workload, machine, thresholds, agents.catalogue)


def agents_of(rows: Iterable[Mapping[str, Any]]) -> Agents:
    """The strategy's models and agents, with `rows` changing or adding models (docs/simulation.md)."""
    specs = dict(STRATEGY_CATALOGUE.models)
    groups = {group.model: group for group in strategy_agents(STRATEGY_CATALOGUE).groups}
    for row in rows:
        known = dict(row)
        name = str(known.get("name", ""))
        sizes = {key: known.pop(key) for key in ("agents", "prompt_tokens", "output_tokens") if key in known}
        specs[name] = spec = _spec(name, known, specs.get(name))
        tier = spec.tier
        group = groups.get(name, Group(name, 0, kinds.MEAN_PROMPT_TOKENS[tier], kinds.MEAN_OUTPUT_TOKENS[tier]))
        groups[name] = dataclasses.replace(group, **sizes)
    population = tuple(group for group in groups.values() if group.agents > 0)
    if not population:
        raise ConfigurationError("no model has any agents")
    return Agents(catalogue(STRATEGY_TIERS, tuple(specs.values())), population)


def _spec(name: str, row: Mapping[str, Any], base: ModelSpec | None) -> ModelSpec:
    if not name:
        raise ConfigurationError("a model row needs a name")
    values = dict(row)
    if "residency" in values:
        values["residency"] = Residency(values["residency"])
    try:
        spec = dataclasses.replace(base, **values) if base else ModelSpec(**_completed(values))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"model {name}: {error}") from None
    if spec.tier not in STRATEGY_CATALOGUE.tiers:
        raise ConfigurationError(f"model {name}: no tier '{spec.tier}'")
    return spec


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A new model needs tier, footprint_mb, load_s, prefill_tps and decode_tps; the rest has defaults."""
    return {"context_window": 4096, "residency": Residency.ON_DEMAND, "max_tokens": 4096, **values}


def _named(options: Options, agents: Agents, machine: MachineModel) -> Workload:
    horizon_s = options.hours * 3600.0
    load = options.load if options.load is not None else DEFAULT_LOAD
    if load <= 0:
        raise ConfigurationError("the load must be above 0 (1.0 = capacity)")
    match options.workload:
        case "closed":
            return kinds.closed(agents, horizon_s, options.think_s)
        case "poisson":
            return kinds.poisson(agents, machine, load, horizon_s)
        case "bursts":
            return kinds.bursts(agents, machine, load, horizon_s)
        case "at-once":
            return kinds.at_once(agents)
        case "saturated":
            return kinds.at_once(agents, SATURATED)
        case "overload":
            return kinds.overload(agents, machine, options.load or OVERLOAD, horizon_s)
        case "starvation":
            return kinds.starvation(agents, horizon_s)
    raise ConfigurationError(f"no workload '{options.workload}' (known: {', '.join(WORKLOADS)}, or a JSONL file)")
