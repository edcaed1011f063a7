"""The proof of the tuner: from a poor setting on synthetic traffic, with a wrong machine model, on fresh hours.

Rule: deterministic by seed. The tuner replays on a machine whose speeds are off by a lognormal factor; what it
accepts is then measured on the true machine and on hours it has not seen. Must not know: how it is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue
from optimizer.core.tuning import Figures
from optimizer.simulation.experiment import machine_for
from optimizer.simulation.replay import PIECES, replay
from optimizer.simulation.tuner import search
from optimizer.simulation.workload import Arrival, poisson, strategy_agents

POOR = {"order": "fifo", "stay": 3.0}
FIXED = tuple(
    {"order": order, "stay": stay} for order in ("wfq", "shortest", "fifo") for stay in (3.0, 8.0, 15.0, 30.0)
)
MOST_CYCLES = 12
FRESH = 24  # hours that nothing was chosen on


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that the tuner accepted: promised and real latency / target, changed over unchanged."""

    change: Mapping[str, object]
    promised: float
    at_worst: float  # upper end of the promise's 95 % interval
    real: float


@dataclass(frozen=True, slots=True)
class Proof:
    """One seed. Latency / target on the fresh hours, on the true machine."""

    seed: int
    load: float
    start: float
    end: float
    fixed: Mapping[str, float]  # of each of the 12 fixed settings
    accepted: Sequence[Accepted]

    @property
    def best_fixed(self) -> float:
        return min(self.fixed.values())

    @property
    def over_best(self) -> float:
        """End / best fixed setting; at most 1.1 is asked."""
        return self.end / self.best_fixed


def prove(
    seed: int, load: float, sigma: float, hour_s: float = 3600.0, say: Callable[[str], None] = lambda text: None
) -> Proof:
    """Tune from the poor setting until nothing is accepted any more. `load` 1.0 is the machine's capacity."""
    true = off_by(STRATEGY_CATALOGUE, sigma, Random(f"{seed}/machine"))
    fresh = _hours(seed, load, hour_s, FRESH, 10_000)
    setting = changed(Thresholds(), POOR)
    lateness = start = _lateness(fresh, setting, true)
    accepted: list[Accepted] = []
    resting: tuple[str, ...] = ()
    for cycle in range(MOST_CYCLES):
        found = search(_hours(seed, load, hour_s, PIECES, 100 * cycle), setting, STRATEGY_CATALOGUE, resting).found
        if found is None:
            if not resting:
                break
            resting = ()  # what was just changed may be tried again
            continue
        setting = changed(setting, found.candidate.change)
        after = _lateness(fresh, setting, true)
        accepted.append(Accepted(found.candidate.change, found.verdict.ratio, found.verdict.high, after / lateness))
        say(f"seed {seed}, load {load}: {found.candidate.name} {found.verdict.ratio:.3f} -> {after / lateness:.3f}")
        lateness = after
        resting = tuple(found.candidate.change)
    fixed = {_name(change): _lateness(fresh, changed(Thresholds(), change), true) for change in FIXED}
    return Proof(seed, load, start, lateness, fixed, accepted)


def off_by(catalogue: Catalogue, sigma: float, random: Random) -> Catalogue:
    """The catalogue with every model's load time and speeds times lognormal factors of `sigma`."""

    def factor() -> float:
        return random.lognormvariate(0.0, sigma)

    models = {
        name: replace(
            spec,
            load_s=spec.load_s * factor(),
            prefill_tps=spec.prefill_tps * factor(),
            decode_tps=spec.decode_tps * factor(),
        )
        for name, spec in catalogue.models.items()
    }
    return Catalogue(catalogue.tiers, models)


def _hours(seed: int, load: float, hour_s: float, count: int, first: int) -> list[list[Arrival]]:
    """Hours of the strategy's 131 agents, numbered from `first` on."""
    agents = strategy_agents(STRATEGY_CATALOGUE)
    workload = poisson(agents, machine_for(Thresholds(), STRATEGY_CATALOGUE), load, hour_s)
    return [list(workload.traffic(seed * 100_000 + first + n).first()) for n in range(count)]


def _lateness(parts: Sequence[Sequence[Arrival]], setting: Thresholds, catalogue: Catalogue) -> float:
    return mean([replayed.figures for replayed in replay(parts, setting, catalogue)])


def mean(figures: Sequence[Figures]) -> float:
    """Latency / target over all pieces, each counting alike."""
    return sum(f.lateness for f in figures) / len(figures)


def _name(change: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in change.items())
