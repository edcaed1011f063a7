"""Workloads: who asks what and when, by seed. The same seed asks every policy the same questions.

Rule: an agent's k-th request has the same size whatever the policy does, because every agent has its own
random stream; only the times of a closed loop depend on the answers. Must not know: policies or the machine's
state. Sizes, agents and targets are those of research/scheduling.md; the spread is ours: outputs lognormal with
sigma 0.4 between agents and 0.5 within one, prompts with sigma 0.5 (the means stay 300/1200/700 and 80/300/900).
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Protocol

from optimizer.core.errors import ConfigurationError
from optimizer.core.request import Priority
from optimizer.core.tiers import DEFAULT, OPUS, SONNET, Catalogue, ModelSpec
from optimizer.machine import MachineModel
from optimizer.simulation.bound import seconds_per_request

AGENTS_PER_TIER: Mapping[str, int] = {DEFAULT: 36, SONNET: 59, OPUS: 36}  # strategy.md
MEAN_PROMPT_TOKENS: Mapping[str, int] = {DEFAULT: 300, SONNET: 1200, OPUS: 700}
MEAN_OUTPUT_TOKENS: Mapping[str, int] = {DEFAULT: 80, SONNET: 300, OPUS: 900}
SIGMA_PROMPT, SIGMA_BETWEEN_AGENTS, SIGMA_WITHIN_AGENT = 0.5, 0.4, 0.5

PAST_ANSWERS = 10  # of each agent, known to the predictor when the clock starts
LONGEST_S, MOST_TOKENS = 366 * 86_400.0, 10_000_000  # what a line of recorded traffic may say
PATIENCE_TARGETS = 3.0  # in the overload workload a client gives up after 3 x its target
THINK_S = 60.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the outside world knows it. `output_tokens` is the truth that no policy ever sees."""

    at_s: float
    agent: str
    model: str
    prompt_tokens: int
    output_tokens: int
    priority: Priority = Priority.AGENT
    deadline_s: float | None = None  # told to the policy, seconds from arrival
    patience_s: float | None = None  # not told: the client leaves after this
    key: str = ""  # equal keys in flight are identical requests


Past = tuple[str, str, int]  # agent, model, output tokens


class Traffic(Protocol):
    """One run's requests. `stop_s` is the end of the clock; infinity lets every request end."""

    stop_s: float

    def first(self) -> Iterable[Arrival]:
        """What arrives whatever happens, in order of time."""
        ...

    def after(self, agent: str, ended_at: float) -> Arrival | None:
        """What an agent asks next when a request of its ends; None in open workloads."""
        ...

    def past(self) -> Iterable[Past]:
        """Answers from before the clock starts: the history that predictions are made from."""
        ...


@dataclass(frozen=True, slots=True)
class Workload:
    """A named kind of traffic; `traffic(seed)` gives one run of it."""

    name: str
    traffic: Callable[[int], Traffic]
    horizon_s: float  # length of the arrivals; rates per minute refer to it in closed loops


@dataclass(frozen=True, slots=True)
class Group:
    """Agents that use one model, with the mean sizes of what they ask."""

    model: str
    agents: int
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Agents:
    """A population: its groups, and the catalogue that names their models."""

    catalogue: Catalogue
    groups: tuple[Group, ...]

    def voices(self, seed: int, without: str = "") -> "list[Voice]":
        """Everybody, in a fixed order; `without` leaves a tier out."""
        return [
            Voice(group, f"{self.slug(group)}-{n:02d}", self.catalogue.models[group.model], seed)
            for group in self.groups
            for n in range(group.agents)
            if self.catalogue.models[group.model].tier != without
        ]

    def slug(self, group: Group) -> str:
        """What its agents are called: the tier, or the model where it is not the tier's own."""
        tier = self.catalogue.tier_of(group.model)
        return tier.slug if tier.model == group.model else group.model

    def target_s(self, model: str) -> float:
        """The response-time target of a model's tier, seconds."""
        return self.catalogue.tier_of(model).target_s


def strategy_agents(catalogue: Catalogue) -> Agents:
    """The 131 agents of strategy.md: 36 default, 59 sonnet, 36 opus, each on its tier's model."""
    return Agents(
        catalogue,
        tuple(
            Group(catalogue.tiers[tier].model, agents, MEAN_PROMPT_TOKENS[tier], MEAN_OUTPUT_TOKENS[tier])
            for tier, agents in AGENTS_PER_TIER.items()
        ),
    )


class Voice:
    """One agent's endless stream of request sizes."""

    def __init__(self, group: Group, agent: str, spec: ModelSpec, seed: int) -> None:
        self.random = Random(f"{seed}/{agent}")
        self.group, self.agent, self.spec, self.seed = group, agent, spec, seed
        self._habit = _lognormal(self.random, 1.0, SIGMA_BETWEEN_AGENTS)

    def ask(self, at_s: float, patience_s: float | None = None) -> Arrival:
        """The agent's next request, at a time."""
        prompt = _lognormal(self.random, self.group.prompt_tokens, SIGMA_PROMPT)
        return Arrival(
            at_s,
            self.agent,
            self.spec.name,
            prompt_tokens=max(8, min(round(prompt), int(0.8 * self.spec.context_window))),
            output_tokens=self._output(self.random),
            patience_s=patience_s,
        )

    def past(self) -> list[Past]:
        """What the agent was answered before the clock starts; drawn apart, so that it changes no request."""
        random = Random(f"{self.seed}/{self.agent}/past")
        return [(self.agent, self.spec.name, self._output(random)) for _ in range(PAST_ANSWERS)]

    def _output(self, random: Random) -> int:
        tokens = self._habit * _lognormal(random, self.group.output_tokens, SIGMA_WITHIN_AGENT)
        return max(1, min(round(tokens), self.spec.max_tokens))


def _lognormal(random: Random, mean: float, sigma: float) -> float:
    return random.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)


class Open:
    """Arrivals known beforehand; the clock runs until every request has ended."""

    stop_s = math.inf

    def __init__(self, arrivals: Iterable[Arrival], voices: Iterable[Voice] = ()) -> None:
        self._arrivals = sorted(arrivals, key=lambda arrival: arrival.at_s)
        self._voices = list(voices)

    def first(self) -> Iterable[Arrival]:
        return self._arrivals

    def after(self, agent: str, ended_at: float) -> Arrival | None:
        return None

    def past(self) -> Iterable[Past]:
        return (answer for voice in self._voices for answer in voice.past())


class Closed:
    """Every agent thinks, asks, waits for the answer and thinks again; the clock stops at the horizon."""

    def __init__(self, voices: Iterable[Voice], think_s: float, stop_s: float, extra: Iterable[Arrival] = ()) -> None:
        self._voices = {voice.agent: voice for voice in voices}
        self._extra = list(extra)
        self._think_s = think_s
        self.stop_s = stop_s

    def first(self) -> Iterable[Arrival]:
        own = [voice.ask(self._think(voice)) for voice in self._voices.values()]
        return sorted(own + self._extra, key=lambda arrival: arrival.at_s)

    def after(self, agent: str, ended_at: float) -> Arrival | None:
        voice = self._voices.get(agent)
        return None if voice is None else voice.ask(ended_at + self._think(voice))

    def past(self) -> Iterable[Past]:
        return (answer for voice in self._voices.values() for answer in voice.past())

    def _think(self, voice: Voice) -> float:
        return voice.random.expovariate(1.0 / self._think_s)


def capacity_per_s(machine: MachineModel, agents: Agents) -> float:
    """Requests per second that the machine could just carry: both slots always busy on one model, no swaps.

    Load 1.0 is this rate. One mean request of a model costs P + (D - P) / 1.3 seconds, where P and D are the
    seconds that its prefill and decode take alone (see bound.py); models are weighted by their agents.
    """
    total = sum(group.agents for group in agents.groups)
    return total / sum(
        group.agents * seconds_per_request(machine, group.model, group.prompt_tokens, group.output_tokens)
        for group in agents.groups
    )


# --- the kinds ---------------------------------------------------------------------------------------------------


def poisson(
    agents: Agents, machine: MachineModel, load: float, horizon_s: float, patience_targets: float | None = None
) -> Workload:
    """Requests of random agents at a constant rate of `load` x capacity."""
    rate = load * capacity_per_s(machine, agents)
    return _open("poisson", agents, horizon_s, patience_targets, partial(_poisson_times, rate, horizon_s))


def overload(agents: Agents, machine: MachineModel, load: float, horizon_s: float) -> Workload:
    """Poisson, with clients that give up after 3 x their target."""
    rate = load * capacity_per_s(machine, agents)
    return _open("overload", agents, horizon_s, PATIENCE_TARGETS, partial(_poisson_times, rate, horizon_s))


def bursts(
    agents: Agents, machine: MachineModel, load: float, horizon_s: float, size: int = 20, spread_s: float = 5.0
) -> Workload:
    """Bursts at Poisson times, each of geometrically many requests (mean `size`) within `spread_s`; `load` in all."""
    rate = load * capacity_per_s(machine, agents) / size

    def times(random: Random) -> Iterator[float]:
        for start in _poisson_times(rate, horizon_s, random):
            count = 1 + int(math.log(1.0 - random.random()) / math.log(1.0 - 1.0 / size)) if size > 1 else 1
            yield from (start + random.uniform(0.0, spread_s) for _ in range(count))

    return _open("bursts", agents, horizon_s, None, times)


def at_once(agents: Agents, each: int = 1) -> Workload:
    """Every agent asks `each` times, at time 0; the order in which they come is random."""

    def traffic(seed: int) -> Traffic:
        voices = agents.voices(seed)
        arrivals = [voice.ask(0.0) for voice in voices for _ in range(each)]
        Random(f"{seed}/order").shuffle(arrivals)
        return Open(arrivals, voices)

    return Workload("at-once" if each == 1 else "saturated", traffic, 0.0)


def closed(agents: Agents, horizon_s: float, think_s: float = THINK_S) -> Workload:
    """Everybody asks, waits, thinks (exponential, mean `think_s`) and asks again, until the horizon."""

    def traffic(seed: int) -> Traffic:
        return Closed(agents.voices(seed), think_s, horizon_s)

    return Workload("closed", traffic, horizon_s)


RARE_AGENT = "rare"


def starvation(agents: Agents, horizon_s: float, every_s: float = 1200.0, think_s: float = 1.0) -> Workload:
    """Continuous traffic on the small models (their agents hardly think), and a rare opus request every `every_s`.

    The rare ones come in the first three quarters of the time, so that the end of the clock excuses nobody.
    """

    def traffic(seed: int) -> Traffic:
        rare = [group for group in agents.groups if agents.catalogue.models[group.model].tier == OPUS]
        if not rare:
            raise ConfigurationError("the starvation workload needs a model of the opus tier")
        voice = Voice(rare[0], RARE_AGENT, agents.catalogue.models[rare[0].model], seed)
        asked = [voice.ask(every_s * (n + 0.5)) for n in range(int(0.75 * horizon_s / every_s))]
        return Closed(agents.voices(seed, without=OPUS), think_s, horizon_s, asked)

    return Workload("starvation", traffic, horizon_s)


def recorded(arrivals: list[Arrival]) -> Workload:
    """Recorded traffic, the same for every seed."""
    horizon_s = max((arrival.at_s for arrival in arrivals), default=0.0)
    return Workload("recorded", lambda seed: Open(arrivals), horizon_s)


def _open(
    name: str,
    agents: Agents,
    horizon_s: float,
    patience_targets: float | None,
    times: Callable[[Random], Iterable[float]],
) -> Workload:
    def traffic(seed: int) -> Traffic:
        random = Random(f"{seed}/times")
        voices = agents.voices(seed)
        arrivals = []
        for at_s in sorted(times(random)):
            voice = random.choice(voices)
            target_s = agents.target_s(voice.spec.name)
            arrivals.append(voice.ask(at_s, patience_targets and patience_targets * target_s))
        return Open(arrivals, voices)

    return Workload(name, traffic, horizon_s)


def _poisson_times(rate: float, horizon_s: float, random: Random) -> Iterator[float]:
    at_s = random.expovariate(rate)
    while at_s < horizon_s:
        yield at_s
        at_s += random.expovariate(rate)


# --- recorded traffic as JSON lines -------------------------------------------------------------------------------


def from_jsonl(lines: Iterable[str], catalogue: Catalogue) -> list[Arrival]:
    """Arrivals from JSON lines (docs/simulation.md). Raises ConfigurationError naming the line that is wrong."""
    arrivals = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            arrivals.append(_from_row(json.loads(line), catalogue))
        except RecursionError:
            raise ConfigurationError(f"traffic line {number}: nested too deeply") from None
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigurationError(f"traffic line {number}: {reason}") from None
    if not arrivals:
        raise ConfigurationError("the traffic file holds no request")
    return arrivals


def _from_row(row: Mapping[str, Any], catalogue: Catalogue) -> Arrival:
    if not isinstance(row, dict):
        raise ValueError("must be a JSON object")
    model = row["model"]
    if model not in catalogue.models:
        raise ValueError(f"unknown model '{str(model)[:80]}' (known: {', '.join(catalogue.models)})")
    at_s, prompt, output = float(row["at_s"]), int(row["prompt_tokens"]), int(row["output_tokens"])
    if not 0 <= at_s <= LONGEST_S or not 1 <= prompt <= MOST_TOKENS or not 0 <= output <= MOST_TOKENS:
        raise ValueError(
            f"at_s must be from 0 to {LONGEST_S:.0f}, prompt_tokens from 1 and output_tokens from 0 to {MOST_TOKENS}"
        )
    priority = str(row.get("priority", "agent")).upper()
    if priority not in Priority.__members__:
        raise ValueError(f"priority must be one of {', '.join(p.lower() for p in Priority.__members__)}")
    return Arrival(
        at_s,
        str(row["agent"]),
        model,
        prompt,
        output,
        priority=Priority[priority],
        deadline_s=_seconds(row, "deadline_s"),
        patience_s=_seconds(row, "patience_s"),
        key=str(row.get("key", "")),
    )


def _seconds(row: Mapping[str, Any], name: str) -> float | None:
    """An optional length of time. Raises ValueError when it is none."""
    if row.get(name) is None:
        return None
    value = float(row[name])
    if not 0 <= value <= LONGEST_S:
        raise ValueError(f"{name} must be from 0 to {LONGEST_S:.0f}")
    return value
