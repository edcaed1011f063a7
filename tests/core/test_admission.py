"""Who is refused, why, and when to come back."""

from dataclasses import replace

import pytest

from optimizer.core import events as ev
from optimizer.core.commands import Fail, Reject, RejectReason
from optimizer.core.thresholds import Thresholds
from tests.core.machine import DEEPSEEK, QWEN, TINY, Machine, arrived, job


def refused(machine: Machine, *args: object, **more: object) -> Reject:
    rejects = [c for c in machine.send(arrived(*args, **more)) if isinstance(c, Reject)]
    assert len(rejects) == 1
    return rejects[0]


def full(**limits: int) -> Machine:
    """Three waiting requests of one agent; nothing is loaded yet."""
    machine = Machine(Thresholds(**limits))
    for number in range(3):
        machine.send(arrived(f"w{number}", QWEN, agent="busy"))
    return machine


def test_an_agent_at_its_own_limit_is_told_so_even_when_everything_is_full() -> None:
    machine = full(max_waiting_per_agent=3, max_waiting=3)
    assert refused(machine, "x", QWEN, agent="busy").reason is RejectReason.AGENT_LIMIT
    assert refused(machine, "y", QWEN, agent="other").reason is RejectReason.SYSTEM_FULL


def test_an_agents_own_limit_goes_before_the_general_one() -> None:
    machine = full(max_waiting_per_agent=100)
    assert refused(machine, "x", QWEN, agent="busy", max_waiting=3).reason is RejectReason.AGENT_LIMIT


def test_places_in_a_full_system_are_promised_in_turn() -> None:
    machine = full(max_waiting=3)
    times = [refused(machine, f"x{n}", QWEN, agent=f"a{n}").retry_after_s for n in range(30)]
    assert times == sorted(times) and times[-1] > times[0] >= 1.0


def test_a_deadline_that_cannot_be_met_is_refused_with_the_predicted_finish() -> None:
    machine = Machine()
    answer = refused(machine, "late", DEEPSEEK, tokens=400, deadline=5.0)
    assert answer.reason is RejectReason.DEADLINE
    assert answer.predicted_s == pytest.approx(6.0 + 30 / 500 / 0.65 + 400 / 40 / 0.65, rel=0.2)
    machine.send(arrived("in time", DEEPSEEK, tokens=400, deadline=machine.now + 60.0))
    machine.run_dry()
    assert machine.ends == {"late": "rejected", "in time": "finished"}


def test_a_deadline_that_passes_while_waiting_is_not_worked_for() -> None:
    machine = Machine()
    machine.send(arrived("first", TINY, tokens=2000))
    machine.send(arrived("second", TINY, tokens=2000))
    machine.run_until(2.0)
    machine.send(ev.RequestArrived(replace(job("third", TINY, tokens=1), deadline=machine.now + 60.0)))
    machine.scheduler._state.entries["third"].job = job("third", TINY, tokens=1, deadline=3.0)
    machine.run_dry()
    assert machine.ends["third"] == "failed"


def test_pauses_refuse_new_requests_and_let_the_others_end() -> None:
    machine = Machine()
    machine.send(arrived("before", TINY))
    machine.send(ev.AgentPaused("lazy"))
    assert refused(machine, "a", TINY, agent="lazy").reason is RejectReason.AGENT_PAUSED
    machine.send(ev.IntakePaused())
    assert refused(machine, "b", TINY).reason is RejectReason.INTAKE_PAUSED
    machine.send(ev.IntakeResumed())
    machine.send(ev.AgentResumed("lazy"))
    machine.send(arrived("c", TINY, agent="lazy"))
    machine.run_dry()
    assert machine.ends == {"before": "finished", "a": "rejected", "b": "rejected", "c": "finished"}


def test_a_model_that_pins_keep_out_is_refused() -> None:
    machine = Machine()
    machine.send(ev.ModelPinned(TINY))
    assert refused(machine, "x", DEEPSEEK).reason is RejectReason.NEVER_FITS


def test_a_model_that_nobody_serves_fails() -> None:
    machine = Machine()
    commands = machine.send(arrived("x", "gpt-9"))
    assert any(isinstance(command, Fail) for command in commands)
