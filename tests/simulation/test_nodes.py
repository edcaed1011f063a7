"""The production fleet on several modelled hosts: the same saturating traffic, in virtual time."""

from typing import Any

import pytest

from optimizer.core.errors import ConfigurationError
from optimizer.core.fleet import Fleet
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.experiment import contender, on_nodes, run
from optimizer.simulation.host import Impossible
from optimizer.simulation.plan import Options, plan
from optimizer.simulation.workload import at_once, strategy_agents
from optimizer.simulation.world import World


@pytest.mark.parametrize("seed", [1, 2])
def test_two_nodes_carry_1_9_times_and_four_3_6_times_what_one_does(seed):
    chosen = plan(Options(workload="saturated"))
    rates = {}
    for nodes in (1, 2, 4):
        found = run(on_nodes(nodes), chosen.workload, chosen.machine, seed, chosen.thresholds, chosen.catalogue)
        assert found.summary.answered == found.summary.requests == 131 * 20
        rates[nodes] = found.summary.answers_per_min
    assert rates[2] >= 1.9 * rates[1], rates
    assert rates[4] >= 3.6 * rates[1], rates


def test_a_fleet_of_one_does_exactly_what_its_scheduler_does():
    chosen = plan(Options(workload="bursts", hours=0.5))
    alone = run("steady", chosen.workload, chosen.machine, 1, chosen.thresholds, chosen.catalogue)
    fleet = World(
        Fleet({"only": chosen.thresholds}, chosen.catalogue),
        chosen.workload.traffic(1),
        chosen.machine,
        chosen.catalogue,
        coalesce=True,
        nodes=("only",),
    ).run()
    ends = [(o.agent, o.arrived_at, o.started_at, o.ended_at) for o in fleet.outcomes]
    assert ends == [(o.agent, o.arrived_at, o.started_at, o.ended_at) for o in alone.history.outcomes]
    assert (fleet.loads, fleet.evictions) == (alone.history.loads, alone.history.evictions)


def test_a_run_on_a_node_that_has_not_loaded_its_model_breaks_the_simulation_off():
    class Elsewhere(Fleet):
        """Starts on the other node what it was told to start here."""

        def handle(self, event: Any, now: float, node: str = "") -> Any:
            other = {"a": "b", "b": "a"}
            return [
                (other[at] if type(command).__name__ == "StartGeneration" else at, command)
                for at, command in super().handle(event, now, node)
            ]

    policy = Elsewhere(dict.fromkeys(("a", "b"), Thresholds()), STRATEGY_CATALOGUE)
    traffic = at_once(strategy_agents(STRATEGY_CATALOGUE)).traffic(1)
    with pytest.raises(Impossible, match="not loaded"):
        World(policy, traffic, MachineModel(), STRATEGY_CATALOGUE, nodes=("a", "b")).run()


def test_names_of_fleets():
    assert contender("steady*3").nodes == ("node-1", "node-2", "node-3")
    for wrong in ("steady*1", "steady*x", "steady*65", "ollama*2"):
        with pytest.raises(ConfigurationError):
            contender(wrong)
