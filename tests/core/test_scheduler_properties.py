"""Random workloads, failures, cancellations and operators: the promises hold after every event.

The machine checks, at every step: memory and slots never exceeded, nothing evicted under a running request,
both slots busy whenever somebody waits who may start, and `Scheduler.invariants`.
"""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core import events as ev
from optimizer.core.commands import EvictModel, LoadModel
from optimizer.core.request import Priority
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE
from tests.core.machine import DEEPSEEK, QWEN, TINY, Machine, arrived

MODELS = st.sampled_from([TINY, QWEN, DEEPSEEK])
BATCH = st.tuples(
    st.floats(0, 300),
    MODELS,
    st.integers(0, 9),  # agent
    st.integers(1, 400),  # tokens
    st.sampled_from(list(Priority)),
)
OPERATOR = st.one_of(
    st.builds(ev.ModelPinned, st.just(TINY)),
    st.builds(ev.ModelUnpinned, st.just(TINY)),
    st.builds(ev.LoadRequested, MODELS),
    st.builds(ev.EvictionRequested, MODELS),
    st.builds(ev.AgentPaused, st.just("agent-1")),
    st.builds(ev.AgentResumed, st.just("agent-1")),
    st.just(ev.IntakePaused()),
    st.just(ev.IntakeResumed()),
    st.builds(ev.ThresholdsChanged, st.builds(Thresholds, slots=st.integers(1, 3), stay=st.floats(0, 20))),
)


def traffic(machine: Machine, batch: list[tuple[float, str, int, int, Priority]]) -> None:
    for number, (at, model, agent, tokens, priority) in enumerate(batch):
        machine.at(at, arrived(f"job-{number}", model, agent=f"agent-{agent}", tokens=tokens, priority=priority))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(BATCH, max_size=40),
    order=st.sampled_from(["wfq", "shortest", "fifo"]),
    slots=st.integers(1, 3),
    cancels=st.lists(st.tuples(st.floats(0, 400), st.integers(0, 39)), max_size=10),
    fail_loads=st.sets(st.integers(1, 8)),
    fail_runs=st.dictionaries(st.integers(1, 30), st.booleans(), max_size=8),
    outages=st.lists(st.tuples(st.floats(0, 300), st.floats(0.1, 30)), max_size=2),
)
def test_every_request_ends_once_whatever_fails(batch, order, slots, cancels, fail_loads, fail_runs, outages) -> None:
    machine = Machine(Thresholds(order=order, slots=slots), fail_loads=fail_loads, fail_runs=fail_runs)
    traffic(machine, batch)
    for at, number in cancels:
        machine.at(at, ev.RequestCancelled(f"job-{number}"))
    for at, length in sorted(outages):
        machine.run_until(at)
        machine.lose_backend()
        machine.at(length, ev.BackendRecovered(()))
    machine.run_until(400)
    machine.send(ev.BackendRecovered(machine.residents()))
    machine.run_dry()
    counters = machine.scheduler.snapshot(machine.now).counters
    assert counters.arrived == counters.ended == len(machine.jobs)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(BATCH, max_size=30),
    wishes=st.lists(st.tuples(st.floats(0, 300), OPERATOR), max_size=12),
)
def test_operators_can_do_anything_at_any_time(batch, wishes) -> None:
    machine = Machine()
    traffic(machine, batch)
    for at, wish in wishes:
        machine.at(at, wish)
    machine.run_until(400)
    machine.send(ev.ModelUnpinned(TINY))
    machine.run_dry()


@settings(max_examples=20, deadline=None)
@given(batch=st.lists(BATCH, max_size=40), sizes=st.tuples(st.floats(400, 2000), st.floats(1500, 3600)))
def test_measured_sizes_replace_declared_ones_and_it_settles(batch, sizes) -> None:
    machine = Machine(size_mb={TINY: sizes[0], QWEN: sizes[1]})
    traffic(machine, batch)
    machine.run_until(400)
    machine.run_dry()
    machine.run_until(machine.now + 600)
    view = machine.scheduler.snapshot(machine.now)
    assert view.used_mb <= view.usable_mb
    loads = machine.counts["LoadModel"]
    machine.run_until(machine.now + 3600)
    assert machine.counts["LoadModel"] == loads, "it goes on loading though nobody asks"


@settings(max_examples=15, deadline=None)
@given(batch=st.lists(BATCH, min_size=10, max_size=40), fail_runs=st.dictionaries(st.integers(1, 30), st.booleans()))
def test_a_recorded_log_replays_to_the_same_commands(batch, fail_runs) -> None:
    machine = Machine(fail_runs=fail_runs)
    traffic(machine, batch)
    machine.run_until(400)
    machine.run_dry()
    again = Scheduler(Thresholds(), STRATEGY_CATALOGUE)
    assert [again.handle(event, at) for at, event in machine.log] == machine.commands


@settings(max_examples=8, deadline=None)
@given(
    rare=st.floats(50, 400),
    hot=st.integers(4, 12),
    urgent=st.sampled_from([0.0, 4.0]),
    priority=st.sampled_from(list(Priority)),
)
def test_a_rare_request_is_served_within_the_bound_under_endless_traffic(rare, hot, urgent, priority) -> None:
    """The bound of docs/scheduling.md for one request ahead of nobody: the others' visit, the drain, the swap."""
    machine = Machine(Thresholds(urgent=urgent))
    machine.closed_loop([TINY] * hot + [QWEN] * hot, tokens=200)
    machine.at(rare, arrived("rare", DEEPSEEK, priority=priority))
    run_s = 200 / 45 / 0.65  # the longest run, as predicted
    stay_s = 15 * (0.7 + 1.2 + 4.0)
    gate_s = Thresholds().longest_waiting_every * hot * 2 * run_s
    machine.run_until(rare + stay_s + gate_s + run_s + 0.7 + 6.0 + 1.0)
    assert "rare" in machine.started_at


@settings(max_examples=8, deadline=None)
@given(rank=st.sampled_from([Priority.INTERACTIVE, Priority.AGENT]), hot=st.integers(3, 10))
def test_a_batch_request_is_started_beside_endless_higher_priorities(rank, hot) -> None:
    machine = Machine()
    machine.closed_loop([TINY] * hot, tokens=50, priority=rank)
    machine.at(20, arrived("patient", TINY, tokens=500, priority=Priority.BATCH))
    older = hot + 1
    machine.run_until(20 + Thresholds().longest_waiting_every * older * (50 / 120) + 1)
    assert "patient" in machine.started_at


@settings(max_examples=10, deadline=None)
@given(batch=st.lists(BATCH, min_size=20, max_size=60))
def test_swaps_under_competing_load_are_no_more_than_stays(batch) -> None:
    """Swaps that push out busy models are at least `stay` swap times apart."""
    machine = Machine()
    traffic(machine, batch)
    machine.run_until(400)
    machine.run_dry()
    kinds = Counter(type(c) for commands in machine.commands for c in commands)
    assert kinds[LoadModel] - kinds[EvictModel] <= len(STRATEGY_CATALOGUE.models)
    assert machine.busy_swaps_apart >= changed(Thresholds(), {}).stay * (0.7 + 1.2) - 1e-6


def test_two_failed_loads_fail_those_who_wait_and_later_ones_succeed() -> None:
    machine = Machine(fail_loads={2, 3})
    machine.send(arrived("tiny", TINY))
    machine.run_until(1.2)  # load 1; the second load is qwen's, as it fits
    machine.send(arrived("first", QWEN))
    machine.run_dry()
    assert machine.ends["first"] == "failed"
    machine.run_until(machine.now + 60)
    machine.send(replace(arrived("second", QWEN)))
    machine.run_dry()
    assert machine.ends["second"] == "finished"
