"""The other gateways: their order, and that each serves everybody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.bound import Task, makespan_bound
from optimizer.simulation.experiment import CONTENDERS, Setting
from optimizer.simulation.history import Ending, History
from optimizer.simulation.workload import Arrival, Open
from optimizer.simulation.world import World

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
MACHINE = MachineModel()


def run(name: str, arrivals: list[Arrival], thresholds) -> History:
    contender = CONTENDERS[name]
    policy = contender.build(Setting(thresholds, STRATEGY_CATALOGUE, MACHINE))
    return World(policy, Open(arrivals), MACHINE, STRATEGY_CATALOGUE, thresholds.slots, contender.slots_per_model).run()


def alternating(name: str) -> list[str]:
    """Models in order of start when qwen and deepseek requests come by turns, all at once."""
    arrivals = [Arrival(0.0, f"a{n}", (QWEN, DEEPSEEK)[n % 2], 100, 100) for n in range(6)]
    history = run(name, arrivals, Thresholds())
    return [o.model for o in sorted(history.outcomes, key=lambda o: o.started_at)]


def test_fifo_keeps_the_order_of_arrival() -> None:
    assert alternating("fifo") == [QWEN, DEEPSEEK] * 3


def test_llama_swap_collates_by_model() -> None:
    assert alternating("llama-swap") == [QWEN] * 3 + [DEEPSEEK] * 3


def test_shortest_takes_the_cheap_model_first() -> None:
    arrivals = [Arrival(0.0, f"a{n}", model, 100, 100) for n, model in enumerate((DEEPSEEK, QWEN, TINY))]
    history = run("shortest", arrivals, Thresholds())
    order = [o.model for o in sorted(history.outcomes, key=lambda o: o.started_at)]
    assert order == [TINY, QWEN, DEEPSEEK]


requests = st.lists(
    st.builds(
        Arrival,
        at_s=st.floats(0, 60),
        agent=st.sampled_from("abcd"),
        model=st.sampled_from([TINY, QWEN, DEEPSEEK]),
        prompt_tokens=st.integers(1, 2000),
        output_tokens=st.integers(0, 600),
        patience_s=st.none() | st.floats(0.5, 100),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(arrivals=requests, name=st.sampled_from(sorted(CONTENDERS)))
def test_every_policy_ends_every_request_once_within_vram_and_slots(arrivals, name) -> None:
    """The world itself asserts it, at every command."""
    history = run(name, arrivals, Thresholds())
    assert len(history.outcomes) == len(arrivals)
    in_order = sorted(arrivals, key=lambda a: a.at_s)
    patient = [o for o, a in zip(history.outcomes, in_order, strict=True) if a.patience_s is None]
    assert all(o.ending is Ending.ANSWERED for o in patient)


@settings(max_examples=40, deadline=None)
@given(arrivals=requests, name=st.sampled_from(sorted(CONTENDERS)))
def test_no_policy_beats_the_bound(arrivals, name) -> None:
    arrivals = [Arrival(0.0, a.agent, a.model, a.prompt_tokens, a.output_tokens) for a in arrivals]
    history = run(name, arrivals, Thresholds())
    tasks = [Task(a.model, a.prompt_tokens, a.output_tokens) for a in arrivals]
    assert makespan_bound(MACHINE, tasks, 2, CONTENDERS[name].slots_per_model) <= history.ended_at + 1e-6
