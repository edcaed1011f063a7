"""The modelled machine keeps the figures of research/scheduling.md and loses no work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.errors import LoadFailed
from optimizer.machine import Change, ChangeKind, Machine, MachineModel

TINY, QWEN, DEEP = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"


def loaded(*models: str) -> Machine:
    machine = Machine(MachineModel())
    for model in models:
        machine.advance(machine.load(model, machine.now))
    return machine


def test_a_run_alone_takes_prefill_plus_decode() -> None:
    machine = loaded(TINY)
    assert machine.now == 1.2
    machine.start("a", TINY, 300, 120, 1.2)
    assert machine.next_change() == pytest.approx(1.3)
    assert machine.advance(2.3 + 1e-6) == [
        Change(ChangeKind.PREFILLED, "a", pytest.approx(1.3)),
        Change(ChangeKind.FINISHED, "a", pytest.approx(2.3)),
    ]
    assert machine.next_change() is None


def test_two_streams_on_one_model_run_at_065_each() -> None:
    machine = loaded(TINY)
    machine.start("a", TINY, 0, 78, 1.2)
    machine.start("b", TINY, 0, 78, 1.2)
    finished = [c.at for c in machine.advance(10.0) if c.kind is ChangeKind.FINISHED]
    assert finished == pytest.approx([2.2, 2.2])


def test_two_models_decoding_run_at_055_each() -> None:
    machine = loaded(TINY, QWEN)
    begin = machine.now
    machine.start("a", TINY, 0, 66, begin)
    machine.start("b", QWEN, 0, 450, begin)
    assert next(c.at for c in machine.advance(begin + 2) if c.kind is ChangeKind.FINISHED) == pytest.approx(begin + 1)


def test_a_stopped_run_gives_its_share_back() -> None:
    machine = loaded(TINY)
    a = machine.start("a", TINY, 0, 120, 1.2)
    machine.start("b", TINY, 0, 120, 1.2)
    machine.stop("b", 2.2)
    assert a.tokens_out == 78
    assert [c.kind for c in machine.advance(2.2)] == [ChangeKind.PREFILLED, ChangeKind.PREFILLED]
    assert machine.next_change() == pytest.approx(2.2 + (120 - 78) / 120)


def test_memory_is_held_from_the_start_of_a_load_to_the_end_of_an_eviction() -> None:
    machine = loaded(TINY)
    with pytest.raises(LoadFailed, match="3200 MB and 2886 MB"):
        machine.load(DEEP, machine.now)
    gone_at = machine.evict(TINY, machine.now)
    assert gone_at == pytest.approx(1.9)
    assert machine.residents == () and machine.used_mb == 800
    machine.advance(gone_at)
    assert machine.load(DEEP, gone_at) == pytest.approx(7.9)


def test_loads_happen_one_after_the_other() -> None:
    machine = Machine(MachineModel())
    assert machine.load(TINY, 0.0) == pytest.approx(1.2)
    assert machine.load(QWEN, 0.0) == pytest.approx(5.2)


def test_a_faster_machine_divides_every_duration() -> None:
    model = MachineModel().faster(20)
    assert model.load_s(DEEP) == pytest.approx(0.3)
    assert model.unload_s == pytest.approx(0.035)
    assert model.specs[TINY].decode_tps == 2400


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 500), st.integers(0, 200)), min_size=1, max_size=6),
    st.lists(st.floats(0, 30), max_size=10),
)
def test_looking_more_often_changes_nothing(runs: list[tuple[float, int, int]], looks: list[float]) -> None:
    def play(extra: list[float]) -> list[Change]:
        machine = loaded(TINY, QWEN)
        begin = machine.now
        steps = [(at, str(i), p, o) for i, (at, p, o) in enumerate(runs)] + [(at, "", 0, 0) for at in extra]
        changes: list[Change] = []
        for at, run_id, prompt, output in sorted(steps, key=lambda step: step[0]):
            if run_id:
                machine.start(run_id, (TINY, QWEN)[int(run_id) % 2], prompt, output, begin + at)
            changes += machine.advance(begin + at)
        changes += machine.advance(begin + 1000)
        assert not machine.runs
        return changes

    finished = {c.subject: c.at for c in play([]) if c.kind is ChangeKind.FINISHED}
    again = {c.subject: c.at for c in play(looks) if c.kind is ChangeKind.FINISHED}
    assert again == pytest.approx(finished)
    assert len(finished) == len(runs)
