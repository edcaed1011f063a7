"""Places in a full queue: promised in turn, kept for those who come back, not for those who do not."""

from hypothesis import given
from hypothesis import strategies as st

from optimizer.core import events as ev
from optimizer.core.commands import Reject
from optimizer.core.promises import EARLY_S, LATE_S, Promises
from optimizer.core.thresholds import Thresholds
from tests.core.machine import Machine, job


def test_a_promise_is_due_about_its_time_and_lapses_when_nobody_comes() -> None:
    promises = Promises()
    promises.make("a", 0.0, 10.0)
    promises.advance(10.0 - EARLY_S - 0.01)
    assert not promises.due("a") and promises.expected_now == 0 and len(promises) == 1
    promises.advance(10.0 - EARLY_S)
    assert promises.due("a") and promises.expected_now == 1 and not promises.due("b")
    promises.advance(11.0 + LATE_S + 0.01)
    assert not promises.due("a") and len(promises) == 0 and promises.kept < 1.0


def test_an_agents_promises_are_taken_up_one_by_one() -> None:
    promises = Promises()
    promises.make("a", 0.0, 5.0)
    promises.make("a", 0.0, 6.0)
    promises.advance(6.0)
    promises.keep("a")
    assert promises.due("a") and len(promises) == 1
    promises.keep("a")
    assert not promises.due("a") and len(promises) == 0 and promises.kept == 1.0


def test_who_comes_back_in_vain_waits_on_and_is_not_counted_twice() -> None:
    promises = Promises()
    promises.make("a", 0.0, 5.0)
    promises.advance(5.0)
    promises.make("a", 5.0, 1.0)
    assert len(promises) == 1
    promises.advance(6.0)
    assert promises.due("a")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 3.0), st.floats(1.0, 60.0)), max_size=60))
def test_the_count_is_that_of_the_promises_that_stand(steps) -> None:
    promises, now = Promises(), 0.0
    for agent, passed_s, in_s in steps:
        now += passed_s
        promises.advance(now)
        if promises.due(agent) and in_s > 30.0:
            promises.keep(agent)
        else:
            promises.make(agent, now, in_s)
        standing = [p for own in promises._of_agent.values() for p in own]
        assert len(promises) == len(standing) and all(p.stands for p in standing)
        assert 0.0 <= promises.kept <= 1.0
    promises.advance(now + 1000.0)
    assert len(promises) == 0 and not promises._of_agent and not promises._near


class Crowd:
    """Twice as many clients as can be served, on a machine with ten places; the refused come back as told, or not."""

    def __init__(self, returning: bool) -> None:
        self.machine = Machine(Thresholds(max_waiting=10))
        self.machine.send(ev.ResidencyObserved(()))
        self.machine.run_until(10.0)
        self.returning = returning
        self.returns: list[tuple[float, str, float, float]] = []  # when, agent, first refused at, told
        self.errors: list[float] = []
        self.admitted = self.tries = 0

    def come(self, agent: str, first_at: float | None = None, told_s: float = 0.0) -> None:
        now = self.machine.now
        self.tries += 1
        answer = self.machine.send(ev.RequestArrived(job(f"r{self.tries}", agent=agent)))
        refused = next((command for command in answer if isinstance(command, Reject)), None)
        if refused is None:
            self.admitted += 1
            if first_at is not None:
                self.errors.append(abs(now - first_at - told_s) / told_s)
        elif self.returning:
            told_s = told_s or refused.retry_after_s
            self.returns.append((now + refused.retry_after_s, agent, now if first_at is None else first_at, told_s))

    def run(self, seconds: float, every_s: float) -> None:
        at, number = self.machine.now, 0
        end = at + seconds
        while at < end:
            self.returns.sort()
            if self.returns and self.returns[0][0] <= at:
                back_at, agent, first_at, told_s = self.returns.pop(0)
                self.machine.run_until(max(back_at, self.machine.now))
                self.come(agent, first_at, told_s)
                continue
            self.machine.run_until(max(at, self.machine.now))
            self.come(f"agent-{number % 131}")
            at, number = at + every_s, number + 1


def test_at_twice_capacity_a_retry_after_is_right_and_no_slot_is_idle() -> None:
    crowd = Crowd(returning=True)
    crowd.run(seconds=120.0, every_s=0.125)  # 60 tokens at 120 tokens/s on two slots: one every 0.25 s is served
    assert len(crowd.errors) > 100
    assert sorted(crowd.errors)[len(crowd.errors) // 2] <= 0.25
    assert crowd.machine.counts["StartGeneration"] >= 0.97 * 120.0 / 0.25


def test_clients_that_never_come_back_cost_nobody_a_place() -> None:
    crowd = Crowd(returning=False)
    crowd.run(seconds=120.0, every_s=0.125)
    assert crowd.machine.counts["StartGeneration"] >= 0.97 * 120.0 / 0.25
    assert crowd.machine.scheduler._state.promises.kept < 0.2
