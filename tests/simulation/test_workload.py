"""Workloads: the same requests for every policy, sizes as declared, rates relative to capacity."""

from statistics import mean

import pytest

from optimizer.core.errors import ConfigurationError
from optimizer.core.request import Priority
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation import workload as kinds

AGENTS = kinds.strategy_agents(STRATEGY_CATALOGUE)
MACHINE = MachineModel()


def test_there_are_131_agents_in_the_strategys_groups() -> None:
    voices = AGENTS.voices(seed=1)
    assert len(voices) == len({voice.agent for voice in voices}) == 131
    assert [group.agents for group in AGENTS.groups] == [36, 59, 36]


def test_capacity_is_both_slots_on_one_model_without_swaps() -> None:
    # P + (D - P) / 1.3 per request: tinyllama 0.1, 0.667; qwen 2, 6.667; deepseek 1.4, 22.5 seconds
    cost_s = (36 * (0.1 + 0.5667 / 1.3) + 59 * (2 + 4.6667 / 1.3) + 36 * (1.4 + 21.1 / 1.3)) / 131
    assert kinds.capacity_per_s(MACHINE, AGENTS) == pytest.approx(1 / cost_s, rel=1e-4)


@pytest.mark.parametrize("kind", ["poisson", "bursts"])
def test_the_offered_load_is_what_was_asked_for(kind: str) -> None:
    horizon_s = 40 * 3600.0
    workload = getattr(kinds, kind)(AGENTS, MACHINE, 0.8, horizon_s)
    arrivals = list(workload.traffic(3).first())
    assert len(arrivals) / horizon_s == pytest.approx(0.8 * kinds.capacity_per_s(MACHINE, AGENTS), rel=0.12)
    assert [a.at_s for a in arrivals] == sorted(a.at_s for a in arrivals)


def test_sizes_have_the_declared_means() -> None:
    asked = [voice.ask(0.0) for seed in range(20) for voice in AGENTS.voices(seed) for _ in range(5)]
    for group in AGENTS.groups:
        mine = [arrival for arrival in asked if arrival.model == group.model]
        assert mean(a.prompt_tokens for a in mine) == pytest.approx(group.prompt_tokens, rel=0.05)
        assert mean(a.output_tokens for a in mine) == pytest.approx(group.output_tokens, rel=0.05)


def test_a_seed_gives_the_same_requests_and_another_seed_others() -> None:
    workload = kinds.poisson(AGENTS, MACHINE, 0.8, 3600.0)
    assert list(workload.traffic(5).first()) == list(workload.traffic(5).first())
    assert list(workload.traffic(5).first()) != list(workload.traffic(6).first())


def test_an_agents_next_request_has_the_same_size_whenever_it_is_asked() -> None:
    def second(ended_at: float) -> kinds.Arrival:
        traffic = kinds.closed(AGENTS, 3600.0).traffic(1)
        agent = next(iter(traffic.first())).agent
        return traffic.after(agent, ended_at)

    early, late = second(10.0), second(500.0)
    assert (early.prompt_tokens, early.output_tokens) == (late.prompt_tokens, late.output_tokens)
    assert late.at_s - early.at_s == pytest.approx(490.0)


def test_overloaded_clients_give_up_after_three_targets() -> None:
    arrivals = kinds.overload(AGENTS, MACHINE, 1.2, 3600.0).traffic(1).first()
    assert {a.patience_s / AGENTS.target_s(a.model) for a in arrivals} == {3.0}


def test_the_rare_agent_asks_for_what_the_hot_ones_push_out() -> None:
    arrivals = list(kinds.starvation(AGENTS, 4 * 3600.0).traffic(1).first())
    rare = [a for a in arrivals if a.agent == kinds.RARE_AGENT]
    assert len(rare) == 9
    assert {a.model for a in rare} == {"deepseek-r1:8b"}
    assert "deepseek-r1:8b" not in {a.model for a in arrivals if a.agent != kinds.RARE_AGENT}


def test_recorded_traffic_is_read_as_documented() -> None:
    lines = [
        '{"at_s": 2.5, "agent": "b", "model": "tinyllama", "prompt_tokens": 9, "output_tokens": 1}',
        "",
        '{"at_s": 0, "agent": "a", "model": "deepseek-r1:8b", "prompt_tokens": 10, "output_tokens": 20,'
        ' "priority": "interactive", "deadline_s": 60, "patience_s": 90, "key": "k"}',
    ]
    later, first = kinds.from_jsonl(lines, STRATEGY_CATALOGUE)
    assert later == kinds.Arrival(2.5, "b", "tinyllama", 9, 1)
    assert (first.priority, first.deadline_s, first.patience_s, first.key) == (Priority.INTERACTIVE, 60.0, 90.0, "k")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ("[]", "line 1"),
        ('{"agent": "a", "model": "tinyllama", "prompt_tokens": 1, "output_tokens": 1}', "'at_s' is missing"),
        ('{"at_s": 0, "agent": "a", "model": "gpt", "prompt_tokens": 1, "output_tokens": 1}', "unknown model 'gpt'"),
        (
            '{"at_s": -1, "agent": "a", "model": "tinyllama", "prompt_tokens": 1, "output_tokens": 1}',
            "at_s must be from 0",
        ),
        ('{"at_s": NaN, "agent": "a", "model": "tinyllama", "prompt_tokens": 1, "output_tokens": 1}', "at_s must be"),
        ('{"at_s": 0, "agent": "a", "model": "tinyllama", "prompt_tokens": 1e400, "output_tokens": 1}', "line 1"),
        ('{"at_s": 0, "agent": "a", "model": "tinyllama", "prompt_tokens": 1e20, "output_tokens": 1}', "from 1"),
        (
            '{"at_s": 0, "agent": "a", "model": "tinyllama", "prompt_tokens": 1, "output_tokens": 1, "patience_s": -1}',
            "patience_s must be",
        ),
        ("[" * 200_000, "line 1"),
        ("", "no request"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        kinds.from_jsonl([line], STRATEGY_CATALOGUE)
