"""The world carries out what is possible, breaks off at what is not, and keeps exact books."""

import math

import pytest

from optimizer.core.commands import (
    CancelGeneration,
    Command,
    EvictModel,
    LoadModel,
    Reject,
    RejectReason,
    StartGeneration,
    WakeAt,
)
from optimizer.core.events import (
    Event,
    GenerationCancelled,
    GenerationFinished,
    ModelLoaded,
    RequestArrived,
    RequestCancelled,
    TimerFired,
)
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.history import EMPTY, FULL, PARTIAL, SWAPPING, Ending, History
from optimizer.simulation.workload import Arrival, Open
from optimizer.simulation.world import Impossible, World

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
MACHINE = MachineModel()


def arrival(at_s: float, model: str = QWEN, agent: str = "a", prompt: int = 600, output: int = 45, **more) -> Arrival:
    return Arrival(at_s, agent, model, prompt, output, **more)


class Script:
    """A policy that answers the n-th event with the n-th list of commands."""

    def __init__(self, *answers: list[Command]) -> None:
        self.answers, self.heard = list(answers), []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.heard.append((round(now, 9), event))
        return self.answers.pop(0) if self.answers else []


class Eager:
    """Loads what comes and starts it on the first free slot; never evicts."""

    def __init__(self, slots: int = 2) -> None:
        self.waiting, self.loaded, self.loading = [], set(), set()
        self.slots = dict.fromkeys(range(slots))
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.heard.append(event)
        commands: list[Command] = []
        if isinstance(event, RequestArrived):
            self.waiting.append(event.job)
            if event.job.model not in self.loading:
                self.loading.add(event.job.model)
                commands.append(LoadModel(event.job.model))
        if isinstance(event, ModelLoaded):
            self.loaded.add(event.model)
        if isinstance(event, RequestCancelled):
            self.waiting = [job for job in self.waiting if job.id != event.job_id]
            if event.job_id in self.slots.values():
                commands.append(CancelGeneration(event.job_id))
        if isinstance(event, GenerationFinished | GenerationCancelled):
            self.slots = {slot: None if job == event.job_id else job for slot, job in self.slots.items()}
        for job in list(self.waiting):
            free = [slot for slot, owner in self.slots.items() if owner is None]
            if free and job.model in self.loaded:
                self.waiting.remove(job)
                self.slots[free[0]] = job.id
                commands.append(StartGeneration(job.id, job.model, free[0]))
        return commands


def run(policy, *arrivals: Arrival, **more) -> History:
    return World(policy, Open(arrivals), MACHINE, STRATEGY_CATALOGUE, **more).run()


def test_one_request_takes_load_prefill_and_decode() -> None:
    history = run(Eager(), arrival(1.0))
    (outcome,) = history.outcomes
    # 4 s load, 600 / 600 s prefill, 45 / 45 s decode
    assert (outcome.started_at, outcome.ended_at) == (5.0, 7.0)
    assert (outcome.ending, outcome.latency_s, outcome.wait_s) == (Ending.ANSWERED, 6.0, 4.0)
    assert history.gpu_s[SWAPPING] == 4.0 and history.gpu_s[PARTIAL] == 2.0 and history.gpu_s[EMPTY] == 1.0


def test_a_second_stream_slows_the_first_from_the_moment_it_decodes() -> None:
    history = run(Eager(), arrival(0.0, output=90), arrival(5.0, agent="b", output=45))
    first, second = history.outcomes
    # first: decodes alone from 5 to 6 (45 tokens); both decode at 0.65 x 45 = 29.25 tok/s from 6 on, so 45 tokens
    # more take 1.538 s; the second finishes its 45 in the same time
    assert first.ended_at == pytest.approx(6.0 + 45 / 29.25)
    assert second.ended_at == pytest.approx(6.0 + 45 / 29.25)
    assert history.gpu_s[FULL] == pytest.approx(1.0 + 45 / 29.25)


def test_two_models_decode_at_55_percent_each() -> None:
    history = run(Eager(), arrival(0.0, output=450), arrival(0.0, TINY, agent="b", prompt=3000, output=1200))
    tiny = history.outcomes[1]
    # loads one after the other: qwen 0 to 4, tiny to 5.2; tiny decodes from 6.2 at 66 tok/s beside qwen
    assert tiny.started_at == pytest.approx(5.2)
    qwen_left = 450 - 45 * 1.2  # qwen decodes alone from 5 to 6.2
    both_until = 6.2 + qwen_left / (0.55 * 45)
    tiny_left = 1200 - (both_until - 6.2) * 66
    assert tiny.ended_at == pytest.approx(both_until + tiny_left / 120)


def test_the_policy_sees_a_prediction_and_never_the_truth() -> None:
    policy = Eager()
    run(policy, arrival(0.0, output=7), arrival(20.0, output=7))
    jobs = [event.job for event in policy.heard if isinstance(event, RequestArrived)]
    assert jobs[0].expected_tokens == 300  # the tier's typical answer: nothing is known of the agent yet
    assert 7 < jobs[1].expected_tokens < 300  # after one short answer


def test_a_client_that_loses_patience_while_waiting_ends_once_and_is_reported() -> None:
    policy = Eager()
    history = run(policy, arrival(0.0, patience_s=2.0), arrival(0.0, agent="b"))
    assert [o.ending for o in history.outcomes] == [Ending.GAVE_UP, Ending.ANSWERED]
    assert history.outcomes[0].latency_s == 2.0
    assert sum(isinstance(event, RequestCancelled) for event in policy.heard) == 1


def test_a_client_that_leaves_while_it_runs_frees_its_slot_at_once() -> None:
    policy = Eager(slots=1)
    history = run(policy, arrival(0.0, output=4500, patience_s=10.0), arrival(0.0, agent="b"), slots=1)
    assert [o.ending for o in history.outcomes] == [Ending.GAVE_UP, Ending.ANSWERED]
    assert history.outcomes[1].started_at == 10.0
    assert any(isinstance(event, GenerationCancelled) for event in policy.heard)


def test_identical_requests_share_one_run_when_the_policy_coalesces() -> None:
    arrivals = (arrival(0.0, key="same"), arrival(4.5, agent="b", key="same"), arrival(4.5, agent="c", key="other"))
    policy = Eager()
    shared = run(policy, *arrivals, coalesce=True)
    assert sum(isinstance(event, RequestArrived) for event in policy.heard) == 2
    assert shared.outcomes[0].ended_at == shared.outcomes[1].ended_at
    policy = Eager()
    run(policy, *arrivals)
    assert sum(isinstance(event, RequestArrived) for event in policy.heard) == 3


def test_a_shared_run_goes_on_until_its_last_client_leaves() -> None:
    arrivals = (arrival(0.0, key="same", patience_s=4.5), arrival(0.0, agent="b", key="same"))
    history = run(Eager(), *arrivals, coalesce=True)
    assert [o.ending for o in history.outcomes] == [Ending.GAVE_UP, Ending.ANSWERED]


def test_a_wake_up_is_replaced_by_the_next_event() -> None:
    refuse = [Reject("r1", RejectReason.SYSTEM_FULL, 1.0), Reject("r2", RejectReason.SYSTEM_FULL, 1.0)]
    policy = Script([WakeAt(3.0)], [WakeAt(5.0)], refuse)
    run(policy, arrival(0.0), arrival(2.0, agent="b"))
    heard = [(at, type(event)) for at, event in policy.heard]
    assert heard == [(0.0, RequestArrived), (2.0, RequestArrived), (5.0, TimerFired)]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([[LoadModel(QWEN), LoadModel(DEEPSEEK)]], "needs 3200 MB"),
        ([[StartGeneration("r1", QWEN, 0)]], "not loaded"),
        ([[LoadModel(QWEN)], [StartGeneration("r1", QWEN, 2)]], "slot 2 does not exist"),
        ([[LoadModel(QWEN)], [StartGeneration("r1", QWEN, 0), StartGeneration("r1", QWEN, 1)]], "started already"),
        ([[LoadModel(QWEN)], [StartGeneration("r1", QWEN, 0), EvictModel(QWEN)]], "has runs"),
        ([[LoadModel(TINY)], [StartGeneration("r1", TINY, 0)]], "asked for qwen"),
        ([[Reject("r1", RejectReason.SYSTEM_FULL, 1.0), Reject("r1", RejectReason.SYSTEM_FULL, 1.0)]], "has ended"),
        ([[EvictModel(QWEN)]], "not loaded"),
        ([[]], "does nothing"),
    ],
)
def test_the_impossible_is_refused(answers: list[list[Command]], said: str) -> None:
    with pytest.raises(Impossible, match=said):
        run(Script(*answers), arrival(0.0))


def test_two_runs_cannot_share_a_slot() -> None:
    policy = Script([LoadModel(QWEN)], [], [StartGeneration("r1", QWEN, 0), StartGeneration("r2", QWEN, 0)])
    with pytest.raises(Impossible, match="taken"):
        run(policy, arrival(0.0), arrival(0.0, agent="b"))


def test_a_policy_that_wakes_itself_for_ever_is_stopped() -> None:
    class Restless:
        def handle(self, event: Event, now: float) -> list[Command]:
            return [WakeAt(now)]

    with pytest.raises(Impossible, match="for ever"):
        run(Restless(), arrival(0.0))


def test_the_parts_of_the_gpu_time_add_up() -> None:
    history = run(Eager(), *(arrival(float(n), agent=f"a{n}") for n in range(5)))
    assert math.isclose(sum(history.gpu_s.values()), history.ended_at)
    assert [stay.model for stay in history.stays] == [QWEN]
