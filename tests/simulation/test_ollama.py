"""Ollama's rules, one small scenario each: what bypasses, what blocks, who is evicted."""

from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.history import Ending, History
from optimizer.simulation.ollama import Ollama
from optimizer.simulation.workload import Arrival, Open
from optimizer.simulation.world import World

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
MACHINE = MachineModel()


def ask(at_s: float, model: str, agent: str = "a", seconds: int = 10, **more) -> Arrival:
    """A request that takes `seconds` alone."""
    spec = MACHINE.specs[model]
    return Arrival(at_s, agent, model, round(spec.prefill_tps), round(spec.decode_tps * (seconds - 1)), **more)


def run(*arrivals: Arrival, **more) -> History:
    footprints_mb = {model: MACHINE.footprint_mb(model) for model in MACHINE.specs}
    policy = Ollama(footprints_mb, MACHINE.usable_mb, **more)
    return World(policy, Open(arrivals), MACHINE, STRATEGY_CATALOGUE, slots_per_model=True).run()


def starts(history: History) -> list[float]:
    return [round(outcome.started_at, 6) for outcome in history.outcomes]


def test_two_run_at_once_per_model_and_the_third_waits_for_the_semaphore() -> None:
    history = run(ask(0, QWEN), ask(0, QWEN), ask(0, QWEN))
    assert starts(history)[:2] == [4.0, 4.0]
    assert starts(history)[2] == round(min(o.ended_at for o in history.outcomes[:2]), 6)


def test_two_models_that_fit_run_four_at_once() -> None:
    history = run(ask(0, QWEN, seconds=60), ask(0, QWEN, seconds=60), ask(0, TINY), ask(0, TINY))
    assert starts(history) == [4.0, 4.0, 5.2, 5.2]  # one load at a time


def test_a_loaded_model_is_served_past_the_queue() -> None:
    history = run(ask(0, QWEN, seconds=20), ask(1, DEEPSEEK), ask(2, QWEN, seconds=5))
    qwen, deepseek, later = history.outcomes
    assert later.started_at == 4.0
    assert deepseek.started_at > max(qwen.ended_at, later.ended_at)


def test_what_is_behind_the_blocked_head_waits_although_it_would_fit() -> None:
    history = run(ask(0, QWEN, seconds=30), ask(5, DEEPSEEK), ask(6, TINY, seconds=2))
    qwen, deepseek, tiny = history.outcomes
    assert round(deepseek.started_at - qwen.ended_at, 6) == 6.7  # unload, load
    assert tiny.started_at >= deepseek.ended_at + 0.7


def test_continuous_traffic_on_the_loaded_model_starves_the_waiting_one() -> None:
    stream = [ask(5.0 * n, QWEN, agent=f"q{n}") for n in range(40)]
    history = run(*stream, ask(1.0, DEEPSEEK))
    deepseek = next(outcome for outcome in history.outcomes if outcome.model == DEEPSEEK)
    assert deepseek.started_at > max(o.ended_at for o in history.outcomes if o.model == QWEN)


def test_an_idle_victim_goes_before_a_busy_one() -> None:
    history = run(ask(0, TINY, seconds=2), ask(0, QWEN, seconds=100), ask(30, DEEPSEEK))
    stays = {stay.model: stay for stay in history.stays}
    assert stays[TINY].evict_began == 30.0
    assert stays[QWEN].evict_began == next(o.ended_at for o in history.outcomes if o.model == QWEN)


def test_among_busy_victims_the_path_decides() -> None:
    history = run(ask(0, TINY, seconds=60), ask(0, QWEN, seconds=60), ask(10, DEEPSEEK))
    assert min(history.stays, key=lambda stay: stay.evict_began).model == TINY


def test_an_idle_model_leaves_after_its_keep_alive() -> None:
    history = run(ask(0, TINY, seconds=2), ask(1000, TINY, seconds=2))
    assert history.loads == 2
    first = history.stays[0]
    assert first.evict_began == history.outcomes[0].ended_at + 300.0


def test_the_full_channel_refuses() -> None:
    history = run(ask(0, QWEN), *(ask(0.5, DEEPSEEK) for _ in range(5)), max_queue=2)
    assert [o.ending for o in history.outcomes].count(Ending.REJECTED) == 3  # the loop is busy loading, two wait


def test_a_client_that_leaves_the_blocked_head_costs_an_eviction_for_nothing() -> None:
    history = run(ask(0, QWEN, seconds=20), ask(5, DEEPSEEK, patience_s=3.0), ask(6, TINY, seconds=2))
    qwen, deepseek, tiny = history.outcomes
    assert deepseek.ending is Ending.GAVE_UP
    assert round(tiny.started_at - qwen.ended_at, 6) == 1.9  # qwen is unloaded all the same, then tiny is loaded
