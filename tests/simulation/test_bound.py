"""The lower bound on the makespan, against hand-computed cases."""

import pytest

from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.bound import Task, makespan_bound, work_bound_s

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
MACHINE = MachineModel()


def test_nothing_needs_no_time() -> None:
    assert makespan_bound(MACHINE, [], slots=2) == 0.0


@pytest.mark.parametrize(
    ("prefill_s", "decode_s", "expected"),
    [(0, 13, 10.0), (2, 15, 2 + 13 / 1.3), (10, 0, 5.0), (10, 4, 4 + 6 / 2)],
)
def test_two_slots_hide_prefill_behind_decode_and_decode_at_130_percent(prefill_s, decode_s, expected) -> None:
    assert work_bound_s(MACHINE, prefill_s, decode_s, streams=2, models=2) == pytest.approx(expected)


def test_one_slot_does_one_thing_at_a_time() -> None:
    assert work_bound_s(MACHINE, 3, 5, streams=1, models=2) == pytest.approx(8)


def test_a_single_request_is_bound_by_its_load_and_its_work() -> None:
    one = [Task(QWEN, 600, 45)]
    assert makespan_bound(MACHINE, one, slots=1) == pytest.approx(4.0 + 2.0)


def test_a_model_that_fits_beside_no_other_costs_its_load_and_an_unload() -> None:
    tasks = [Task(model, 1, 0) for model in (TINY, QWEN, DEEPSEEK)]
    work_s = sum(1 / STRATEGY_CATALOGUE.models[task.model].prefill_tps for task in tasks) / 2
    # deepseek's load 6 and the unload 0.7 between the classes; of tinyllama and qwen only the shorter load, 1.2
    assert makespan_bound(MACHINE, tasks, slots=2) == pytest.approx(6.0 + 0.7 + 1.2 + work_s)


def test_on_a_large_card_only_the_first_load_is_dead_time() -> None:
    tasks = [Task(model, 1, 0) for model in (TINY, QWEN, DEEPSEEK)]
    large = MachineModel(usable_mb=7372)
    assert makespan_bound(large, tasks, slots=2) < 1.3


def test_ollamas_slots_per_model_allow_more_at_once() -> None:
    assert work_bound_s(MACHINE, 0, 143, streams=4, models=2) == pytest.approx(100)
