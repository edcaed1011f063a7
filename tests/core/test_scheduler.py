"""The scheduler, event by event: what goes in, what must come out."""

import pytest

from optimizer.core import events as ev
from optimizer.core.commands import CancelGeneration, EvictModel, Fail, LoadModel, StartGeneration, WakeAt
from optimizer.core.request import Priority
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue
from tests.core.machine import DEEPSEEK, QWEN, TINY, Machine, arrived


def resident(*models: str) -> ev.ResidencyObserved:
    sizes = {name: float(spec.footprint_mb) for name, spec in STRATEGY_CATALOGUE.models.items()}
    return ev.ResidencyObserved(tuple(ev.Resident(name, sizes[name], sizes[name]) for name in models))


def scheduler(*loaded: str, **thresholds: object) -> Scheduler:
    result = Scheduler(Thresholds(**thresholds), STRATEGY_CATALOGUE)  # type: ignore[arg-type]
    result.handle(resident(*loaded), 0.0)
    return result


def settled() -> Machine:
    """tinyllama and qwen are in, as prefetched at start."""
    machine = Machine()
    machine.send(resident())
    machine.run_until(100.0)
    return machine


def without_timers(commands: list) -> list:
    return [command for command in commands if not isinstance(command, WakeAt)]


# --- residents -------------------------------------------------------------------------------------


def test_at_start_the_residents_are_loaded_one_after_the_other() -> None:
    s = Scheduler(Thresholds(), STRATEGY_CATALOGUE)
    assert s.handle(resident(), 0.0) == [LoadModel(TINY)]
    assert s.handle(ev.ModelLoaded(TINY, 800, 800, 1.2), 1.2) == [LoadModel(QWEN)]
    assert s.handle(ev.ModelLoaded(QWEN, 2500, 2500, 4.0), 5.2) == []


def test_an_idle_guest_gives_its_place_back_to_the_resident_after_its_stay() -> None:
    machine = settled()
    machine.send(arrived("guest", DEEPSEEK))
    machine.run_dry()
    machine.run_until(machine.now + 90.0)
    assert machine.loaded == {DEEPSEEK}
    machine.run_until(machine.now + 30.0)
    assert machine.loaded == {TINY, QWEN}


# --- starting ----------------------------------------------------------------------------------------


def test_a_request_for_a_loaded_model_starts_at_once() -> None:
    assert scheduler(TINY, QWEN).handle(arrived("a", TINY), 1.0) == [StartGeneration("a", TINY, 0)]


def test_two_loaded_models_share_the_slots_and_a_third_request_waits() -> None:
    s = scheduler(TINY, QWEN)
    assert s.handle(arrived("a", TINY), 1.0) == [StartGeneration("a", TINY, 0)]
    assert s.handle(arrived("b", QWEN), 1.0) == [StartGeneration("b", QWEN, 1)]
    assert s.handle(arrived("c", QWEN), 1.0) == []
    assert s.handle(ev.GenerationFinished("a", 30, 60, 0.1, 0.5), 2.0) == [StartGeneration("c", QWEN, 0)]


def test_requests_for_one_model_start_together() -> None:
    s = scheduler()
    for id in ("a", "b", "c"):
        s.handle(arrived(id, TINY), 0.1)
    commands = s.handle(ev.ModelLoaded(TINY, 800, 800, 1.2), 1.2)
    assert [c.job_id for c in commands if isinstance(c, StartGeneration)] == ["a", "b"]


def test_the_model_that_had_less_of_the_slots_goes_first() -> None:
    s = scheduler(TINY, QWEN, slots=1)
    s.handle(arrived("q1", QWEN, tokens=300), 1.0)
    s.handle(arrived("q2", QWEN, tokens=300), 1.1)
    s.handle(arrived("t", TINY, tokens=300), 1.2)
    assert s.handle(ev.GenerationFinished("q1", 30, 300, 0.1, 9.0), 10.0) == [StartGeneration("t", TINY, 0)]


def test_an_interactive_request_goes_before_the_others_of_any_loaded_model() -> None:
    s = scheduler(TINY, QWEN, slots=1)
    s.handle(arrived("now", TINY), 1.0)
    s.handle(arrived("t", TINY, tokens=1), 1.1)
    s.handle(arrived("chat", QWEN, tokens=900, priority=Priority.INTERACTIVE), 1.2)
    assert s.handle(ev.GenerationFinished("now", 30, 60, 0.1, 0.5), 2.0) == [StartGeneration("chat", QWEN, 0)]


def test_equal_prefixes_like_the_same_slot() -> None:
    s = scheduler(TINY)
    s.handle(arrived("a", TINY, prefix="x"), 1.0)
    s.handle(arrived("b", TINY, prefix="y"), 1.0)
    s.handle(ev.GenerationFinished("a", 30, 60, 0.1, 0.5), 2.0)
    s.handle(ev.GenerationFinished("b", 30, 60, 0.1, 0.5), 2.0)
    assert StartGeneration("c", TINY, 1) in s.handle(arrived("c", TINY, prefix="y"), 3.0)


def test_a_job_id_cannot_be_used_twice_at_once() -> None:
    s = scheduler(TINY)
    s.handle(arrived("a", TINY), 1.0)
    with pytest.raises(ValueError, match="already here"):
        s.handle(arrived("a", TINY), 1.0)


# --- swapping ------------------------------------------------------------------------------------------


def test_an_idle_set_is_evicted_after_the_batch_window_and_only_then_the_newcomer_loaded() -> None:
    s = scheduler(TINY, QWEN)
    assert s.handle(arrived("d", DEEPSEEK), 1.0) == [WakeAt(pytest.approx(1.1))]
    assert s.handle(ev.TimerFired(), 1.1) == [EvictModel(QWEN), EvictModel(TINY)]
    assert s.handle(ev.ModelEvicted(TINY), 1.8) == []
    assert s.handle(ev.ModelEvicted(QWEN), 1.8) == [LoadModel(DEEPSEEK)]
    assert without_timers(s.handle(ev.ModelLoaded(DEEPSEEK, 3200, 3200, 6.0), 7.8)) == [
        StartGeneration("d", DEEPSEEK, 0)
    ]


def test_a_busy_set_stays_for_its_stay() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("q", QWEN), 1.0)
    stay_s = 15 * (0.7 + 4.0)
    assert s.handle(arrived("d", DEEPSEEK), 2.0) == [WakeAt(pytest.approx(2.1))]
    assert s.handle(ev.TimerFired(), 2.2) == [WakeAt(pytest.approx(stay_s))]


def test_with_the_gate_alone_everything_that_waited_is_started_first_though_one_agent_sent_it_all() -> None:
    machine = Machine(Thresholds(urgent=0.0))
    machine.run_until(30)
    for number in range(60):  # all of one agent, as when a whole team shares a key
        machine.send(arrived(f"first-{number}", DEEPSEEK, "team", tokens=300))
    machine.run_until(60)
    for number in range(10):
        machine.send(arrived(f"other-{number}", QWEN, "team", tokens=300))
    machine.run_until(3000)
    waited = [machine.started_at[f"first-{number}"] for number in range(60)]
    assert min(machine.started_at[f"other-{number}"] for number in range(10)) > max(waited)


def test_while_a_set_drains_only_what_ends_before_the_drain_may_start() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("long", QWEN, tokens=900), 1.0)
    s.handle(arrived("d", DEEPSEEK), 2.0)
    s.handle(ev.TimerFired(), 80.0)  # the stay is over: qwen drains
    assert s.handle(arrived("late", QWEN, tokens=900), 0.5 + 80.0) == []


def test_a_short_request_fills_a_drain() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("long", QWEN, tokens=4000), 1.0)
    s.handle(arrived("d", DEEPSEEK), 2.0)
    s.handle(ev.TimerFired(), 80.0)
    assert s.handle(arrived("short", QWEN, tokens=10), 81.0) == [StartGeneration("short", QWEN, 1)]


def test_a_swap_is_called_off_when_whoever_it_was_for_leaves() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("long", QWEN, tokens=4000), 1.0)
    s.handle(arrived("d", DEEPSEEK), 2.0)
    s.handle(ev.TimerFired(), 80.0)
    s.handle(ev.RequestCancelled("d"), 81.0)
    assert StartGeneration("next", QWEN, 1) in s.handle(arrived("next", QWEN, tokens=900), 82.0)


def test_the_stay_shrinks_with_a_faster_backend() -> None:
    s = scheduler(TINY)
    s.handle(ev.ModelLoaded(QWEN, 2500, 2500, 0.2), 0.2)
    s.handle(arrived("q", QWEN), 0.3)
    s.handle(arrived("d", DEEPSEEK), 0.3)
    assert s.snapshot(0.5).queues[2].reason == f"waiting for {QWEN} to have its 13 s: swap pays in 13 s"


# --- faults ----------------------------------------------------------------------------------------------


def test_a_failed_load_beside_others_is_tried_again_alone() -> None:
    s = scheduler(TINY)
    assert LoadModel(QWEN) not in s.handle(ev.TimerFired(), 0.1)  # it is loading already
    commands = s.handle(ev.ModelLoadFailed(QWEN, "out of memory"), 1.0)
    assert without_timers(commands) == []  # nobody waits: it is not worth pushing tinyllama out
    s.handle(arrived("q", QWEN), 2.0)
    assert EvictModel(TINY) in s.handle(ev.TimerFired(), 2.2)
    assert s.handle(ev.ModelEvicted(TINY), 3.0) == [LoadModel(QWEN)]


def test_after_two_failed_loads_those_who_wait_fail_and_the_next_try_is_put_off() -> None:
    s = scheduler(DEEPSEEK)
    s.handle(ev.ModelPinned(DEEPSEEK), 0.0)
    s = Scheduler(Thresholds(), Catalogue(STRATEGY_CATALOGUE.tiers, {QWEN: STRATEGY_CATALOGUE.models[QWEN]}))
    s.handle(arrived("a", QWEN), 0.0)
    assert LoadModel(QWEN) in s.handle(ev.ModelLoadFailed(QWEN, "no file"), 1.0)
    commands = s.handle(ev.ModelLoadFailed(QWEN, "no file"), 2.0)
    assert [c.job_id for c in commands if isinstance(c, Fail)] == ["a"]
    assert s.handle(arrived("b", QWEN), 3.0) == [WakeAt(7.0)]
    assert s.handle(ev.TimerFired(), 7.0) == [LoadModel(QWEN)]


def test_a_run_that_broke_off_before_a_token_is_started_once_more() -> None:
    s = scheduler(TINY)
    s.handle(arrived("a", TINY), 1.0)
    assert s.handle(ev.GenerationFailed("a", "reset", retry=True), 2.0) == [StartGeneration("a", TINY, 1)]
    assert Fail("a", "reset again") in s.handle(ev.GenerationFailed("a", "reset again", retry=True), 3.0)


def test_a_run_that_broke_off_after_a_token_fails() -> None:
    s = scheduler(TINY)
    s.handle(arrived("a", TINY), 1.0)
    assert Fail("a", "reset") in s.handle(ev.GenerationFailed("a", "reset", retry=False), 2.0)


def test_a_lost_backend_requeues_what_had_no_token_and_goes_on_after_recovery() -> None:
    s = scheduler(TINY)
    s.handle(arrived("talking", TINY), 1.0)
    s.handle(arrived("silent", TINY), 1.0)
    s.handle(ev.PrefillFinished("talking"), 1.5)
    commands = s.handle(ev.BackendLost("killed"), 2.0)
    assert [type(c) for c in commands] == [Fail] and commands[0].job_id == "talking"
    assert s.handle(arrived("new", TINY), 3.0) == []
    assert s.handle(ev.BackendRecovered(()), 4.0) == [LoadModel(TINY)]
    commands = s.handle(ev.ModelLoaded(TINY, 800, 800, 1.0), 5.0)
    assert [c.job_id for c in commands if isinstance(c, StartGeneration)] == ["silent", "new"]


def test_cancelling_frees_a_slot_only_when_the_backend_confirms() -> None:
    s = scheduler(TINY, slots=1)
    s.handle(arrived("a", TINY), 1.0)
    s.handle(arrived("b", TINY), 1.0)
    assert s.handle(ev.RequestCancelled("a"), 2.0) == [CancelGeneration("a")]
    assert s.handle(ev.RequestCancelled("a"), 2.0) == []
    assert StartGeneration("b", TINY, 0) in s.handle(ev.GenerationCancelled("a"), 2.1)


def test_late_facts_are_ignored() -> None:
    s = scheduler(TINY, QWEN)
    for event in (
        ev.RequestCancelled("gone"),
        ev.GenerationFinished("gone", 1, 1, 0.1, 0.1),
        ev.GenerationFailed("gone", "x", True),
        ev.GenerationCancelled("gone"),
        ev.PrefillFinished("gone"),
        ev.ModelLoadFailed(DEEPSEEK, "x"),
        ev.ModelEvicted(DEEPSEEK),
    ):
        assert s.handle(event, 1.0) == []
    s.invariants()


# --- operators -------------------------------------------------------------------------------------------


def test_a_pinned_model_is_not_pushed_out() -> None:
    machine = settled()
    machine.send(arrived("d", DEEPSEEK))
    machine.send(ev.ModelPinned(TINY))
    machine.run_until(machine.now + 300)
    assert TINY in machine.loaded
    assert "pinned" in machine.scheduler.position("d", machine.now)[2]
    machine.send(ev.ModelUnpinned(TINY))
    machine.run_dry()


def test_an_operator_brings_a_model_in_past_the_rules_and_puts_one_out() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("q", QWEN), 1.0)
    assert s.handle(ev.LoadRequested(DEEPSEEK), 2.0) == []  # qwen still runs
    assert s.handle(ev.GenerationFinished("q", 30, 60, 0.1, 1.0), 3.0) == [EvictModel(TINY), EvictModel(QWEN)]
    other = scheduler(TINY, QWEN)
    assert other.handle(ev.EvictionRequested(QWEN), 1.0) == [EvictModel(QWEN)]
    assert other.handle(ev.ModelEvicted(QWEN), 2.0) == []  # and it is not brought back unasked


def test_a_smaller_budget_evicts_until_it_fits() -> None:
    s = scheduler(TINY, QWEN)
    assert s.handle(ev.ThresholdsChanged(Thresholds(gpu_memory_mb=3000)), 1.0) == [EvictModel(QWEN)]


def test_slots_can_grow_and_shrink_live() -> None:
    s = scheduler(TINY, slots=1)
    s.handle(arrived("a", TINY), 1.0)
    s.handle(arrived("b", TINY), 1.0)
    assert s.handle(ev.ThresholdsChanged(Thresholds(slots=2)), 2.0)[0] == StartGeneration("b", TINY, 1)
    s.handle(ev.ThresholdsChanged(Thresholds(slots=1)), 3.0)
    s.handle(ev.GenerationFinished("a", 30, 60, 0.1, 0.5), 4.0)
    assert without_timers(s.handle(arrived("c", TINY), 5.0)) == []


def test_a_model_that_leaves_the_catalogue_fails_its_queue() -> None:
    s = scheduler(TINY)
    s.handle(arrived("d", DEEPSEEK), 1.0)
    models = {name: spec for name, spec in STRATEGY_CATALOGUE.models.items() if name != DEEPSEEK}
    commands = s.handle(ev.CatalogueChanged(Catalogue(STRATEGY_CATALOGUE.tiers, models)), 2.0)
    assert [c.job_id for c in commands if isinstance(c, Fail)] == ["d"]


# --- views -------------------------------------------------------------------------------------------------


def test_the_snapshot_shows_who_runs_and_why_others_wait() -> None:
    s = scheduler(TINY, QWEN)
    s.handle(arrived("a", QWEN, agent="ada"), 1.0)
    s.handle(ev.PrefillFinished("a"), 2.0)
    s.handle(arrived("d", DEEPSEEK), 2.0)
    view = s.snapshot(10.5)
    assert (view.slots[0].agent, view.slots[0].phase, view.slots[0].since) == ("ada", "decode", 2.0)
    assert view.slots[1].job_id == ""
    assert [r.model for r in view.residents] == [TINY, QWEN]
    assert view.queues[2].reason == "waiting for qwen2.5-coder:7b to have its 70 s: swap pays in 60 s"
    assert view.used_mb == 3300 and view.waiting == 1


def test_the_snapshot_says_who_would_have_to_leave_for_each_absent_model() -> None:
    s = scheduler(TINY, QWEN)
    [prospect] = s.snapshot(1.0).prospects
    assert (prospect.model, prospect.claim_mb, prospect.measured) == (DEEPSEEK, 3200.0, False)
    assert set(prospect.leaving or ()) == {TINY, QWEN}, "3200 MB fit beside neither"
    s.handle(ev.ModelPinned(QWEN), 2.0)
    assert s.snapshot(3.0).prospects[0].leaving is None, "a pin leaves no room"
    assert scheduler(TINY, QWEN, gpu_memory_mb=8000).snapshot(1.0).prospects[0].leaving == ()


def test_positions_and_waits_grow_with_the_queue() -> None:
    s = scheduler(TINY)
    for n in range(6):
        s.handle(arrived(f"j{n}", TINY, tokens=100 + n), 1.0)
    places = [s.position(f"j{n}", 1.0) for n in range(6)]
    assert [place[0] for place in places] == [0, 0, 1, 2, 3, 4]
    etas = [place[1] for place in places]
    assert etas == sorted(etas) and etas[-1] < s.predicted_wait_s(TINY, 1.0)
    with pytest.raises(KeyError):
        s.position("nobody", 1.0)


def test_the_predicted_wait_of_an_absent_model_counts_the_swap() -> None:
    s = scheduler(TINY, QWEN)
    assert s.predicted_wait_s(TINY, 1.0) == 0.0
    assert s.predicted_wait_s(DEEPSEEK, 1.0) == pytest.approx(0.1 + 0.7 + 6.0)
