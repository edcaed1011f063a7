"""The runner of durable tasks against a scripted engine: what each end of a request means for the task."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections

from controlplane import durable_tasks, task_runner
from controlplane.durable_tasks import Line, Once
from controlplane.models import DurableTask
from controlplane.task_runner import TaskRunner
from optimizer.core.errors import (
    AgentLimit,
    BackendUnavailable,
    Cancelled,
    ContextOverflow,
    DeadlineUnreachable,
    GenerationFailed,
    IntakePaused,
)
from optimizer.core.request import AgentProfile, Priority
from optimizer.core.thresholds import Thresholds, changed
from tests.fake_engine import FakeEngine, Pause, answering, started

pytestmark = pytest.mark.django_db(transaction=True)


class World:
    """A runner, its engine, and a database that can be told to be away."""

    def __init__(self, script, **limits) -> None:
        self.engine = FakeEngine(script)
        self.agents = {slug: AgentProfile(slug, "default") for slug in ("scout", "other")}
        self.agents["secretive"] = AgentProfile("secretive", "default", store_prompts=False)
        self.limits = changed(Thresholds(), limits)
        self.away = 0  # how many calls of the database fail from now on
        self.runner = TaskRunner(
            self.engine, lambda: SimpleNamespace(agents=self.agents, thresholds=self.limits), self.db
        )

    async def db(self, work: Callable, *arguments):
        if self.away:
            self.away -= 1
            raise OperationalError("away")
        return await sync_to_async(work)(*arguments)

    async def accept(self, agent: str = "scout", priority: Priority = Priority.AGENT, **body) -> str:
        def store() -> str:
            task = {"prompt": "why?", **body}
            return durable_tasks.accept(agent, task, priority, Once(), time.time(), 1000)[0].public_id

        made = await sync_to_async(store)()
        self.runner.changed()
        return made

    async def row(self, public_id: str) -> DurableTask:
        return await sync_to_async(lambda: DurableTask.objects.get(public_id=public_id))()

    async def until(self, public_id: str, *statuses: str) -> DurableTask:
        """The task once it is in one of these; fails after five seconds."""
        async with asyncio.timeout(5):
            while (row := await self.row(public_id)).status not in statuses:
                await asyncio.sleep(0.01)
        return row


@pytest_asyncio.fixture
async def world(monkeypatch) -> AsyncIterator[Callable[..., World]]:
    monkeypatch.setattr(task_runner, "BROKEN_RETRY_S", 0.0)
    monkeypatch.setattr(task_runner, "UNAVAILABLE_RETRY_S", 0.0)
    monkeypatch.setattr(task_runner, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(task_runner, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(task_runner, "DATABASE_RETRY_S", 0.01)
    made: list[World] = []

    def make(script=lambda _: answering("so"), **limits) -> World:
        made.append(World(script, **limits))
        made[-1].runner.start()
        return made[-1]

    yield make
    for one in made:
        one.away = 0
        await one.runner.stop()
    await sync_to_async(connections.close_all)()


async def until(holds: Callable[[], bool]) -> None:
    """Fails after five seconds."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def in_turn(*scripts):
    """Each request gets the next script, the last for ever."""
    left = list(scripts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


async def test_a_task_is_run_as_asked_and_its_answer_stored(world):
    here = world()
    made = await here.accept(priority=Priority.BATCH, model="sonnet", max_tokens=9, task_type="analysis")
    row = await here.until(made, "succeeded")
    [request] = here.engine.requests
    assert (request.agent, request.wanted, request.priority, request.options) == (
        "scout", "sonnet", Priority.BATCH, {"num_predict": 9},
    )  # fmt: skip
    assert request.id == row.request_id == f"{made}.1" and request.task.task_type == "analysis"
    assert row.outcome["result"]["text"] == "so" and row.outcome["decisions"][0]["stage"] == "selection"
    assert (row.model, row.attempts, row.claim) == ("tinyllama", 1, "") and row.started_at <= row.finished_at


async def test_each_class_has_its_own_places_and_no_more_than_that(world):
    hold = asyncio.Event()
    here = world(lambda _: [started(), Pause(hold), *answering("so")], durable_in_flight=2)
    made = [await here.accept() for _ in range(5)] + [await here.accept(priority=Priority.BATCH) for _ in range(3)]
    await here.engine.until_running(4)
    await asyncio.sleep(0.2)  # several looks later there are no more
    assert here.engine.running == here.runner.in_flight == 4
    await until(lambda: here.runner.waiting == 4)
    hold.set()
    for task in made:
        await here.until(task, "succeeded")
    assert len(here.engine.requests) == 8


@pytest.mark.parametrize("refusal", [AgentLimit("full", retry_after_s=0.0), IntakePaused("paused", retry_after_s=0.0),
                                     BackendUnavailable("starting")])  # fmt: skip
async def test_refused_for_the_moment_is_tried_later_and_costs_no_attempt(world, refusal):
    here = world(in_turn([refusal], [refusal], [refusal], answering("so")), durable_attempts=1)
    row = await here.until(await here.accept(), "succeeded", "failed")
    assert (row.status, row.attempts) == ("succeeded", 1)
    await until(lambda: here.runner.ended["succeeded"] == 1)
    assert (here.runner.put_back, here.runner.ended["failed"]) == (3, 0)


async def test_what_breaks_off_is_begun_again_a_bounded_number_of_times(world):
    broken = [started(), GenerationFailed("the model died")]
    here = world(in_turn(broken, [GenerationFailed("not even begun")], answering("so")), durable_attempts=3)
    row = await here.until(await here.accept(), "succeeded", "failed")
    assert (row.status, row.attempts) == ("succeeded", 3)
    other = world(lambda _: broken, durable_attempts=3)
    await here.runner.stop()
    row = await other.until(await other.accept(), "succeeded", "failed")
    assert (row.status, row.attempts, len(other.engine.requests)) == ("failed", 3, 3)
    assert row.error == {"type": "generation_failed", "message": "the model died"}


@pytest.mark.parametrize(("error", "status", "kind"), [
    (ContextOverflow("too long"), "failed", "context_length_exceeded"),
    (DeadlineUnreachable("too late", retry_after_s=3.0), "failed", "deadline_unreachable"),
    (Cancelled("an operator cancelled this request"), "cancelled", "cancelled"),
])  # fmt: skip
async def test_what_cannot_get_better_ends_at_once_and_says_why(world, error, status, kind):
    here = world(lambda _: [error])
    row = await here.until(await here.accept(), "succeeded", "failed", "cancelled")
    assert (row.status, row.error["type"], len(here.engine.requests)) == (status, kind, 1)


async def test_a_bug_that_shows_once_costs_an_attempt_and_one_that_stays_fails_without_its_details(world):
    here = world(in_turn([ZeroDivisionError("secret detail")], answering("so")))
    row = await here.until(await here.accept(), "succeeded", "failed")
    assert (row.status, row.attempts) == ("succeeded", 2)
    other = world(lambda _: [ZeroDivisionError("secret detail")], durable_attempts=2)
    await here.runner.stop()
    row = await other.until(await other.accept(), "succeeded", "failed")
    assert (row.status, row.error["type"], len(other.engine.requests)) == ("failed", "internal_error", 2)
    assert "secret detail" not in row.error["message"]


async def test_a_deadline_counts_from_acceptance(world):
    here = world()
    await here.until(await here.accept(deadline_s=60.0), "succeeded")
    assert 50 < here.engine.requests[0].deadline_s < 60
    row = await here.until(await here.accept(deadline_s=1e-9), "failed")
    assert row.error["type"] == "deadline_unreachable" and len(here.engine.requests) == 1


async def test_a_task_of_an_agent_that_was_deleted_fails(world):
    here = world()
    row = await here.until(await here.accept("gone"), "failed")
    assert "deleted" in row.error["message"] and not here.engine.requests


async def test_prompts_that_are_not_kept_go_when_the_task_ends(world):
    here = world()
    row = await here.until(await here.accept("secretive"), "succeeded")
    assert row.body == {} and row.outcome["result"]["text"] == "so"


async def test_a_cancelled_task_stops_its_generation(world):
    here = world(lambda _: [started(), Pause(asyncio.Event())])
    made = await here.accept()
    row = await here.until(made, "running")
    assert await sync_to_async(durable_tasks.cancel)(row, time.time())
    here.runner.changed()
    async with asyncio.timeout(5):
        while here.engine.running:
            await asyncio.sleep(0.01)
    row = await here.row(made)
    assert (row.status, row.outcome, here.engine.closed_early) == ("cancelled", None, 1)


async def test_a_stop_gives_everything_back_at_once_and_the_next_runner_takes_it(world):
    first = world(lambda _: [started(), Pause(asyncio.Event())], durable_in_flight=1)
    made = [await first.accept() for _ in range(3)]
    await first.until(made[0], "running")
    await first.runner.stop()
    assert [((row := await first.row(task)).status, row.claim, row.attempts) for task in made] == [
        ("queued", "", 0)
    ] * 3
    second = world()
    for task in made:
        row = await second.until(task, "succeeded")
        assert row.attempts == 1


async def test_of_two_runners_one_that_lost_its_lease_stores_nothing(world):
    hold = asyncio.Event()
    silent = world(lambda _: [started(), Pause(hold), *answering("late")])
    made = await silent.accept()
    await silent.until(made, "running")
    silent.away = 1_000_000  # it can no longer renew, and does not know that others took over
    await sync_to_async(lambda: DurableTask.objects.update(lease_until="2020-01-01T00:00Z"))()
    other = world(lambda _: answering("in time"))
    row = await other.until(made, "succeeded")
    assert (row.outcome["result"]["text"], row.lost, row.attempts) == ("in time", 1, 2)
    silent.away = 0
    hold.set()
    async with asyncio.timeout(5):
        while silent.runner.in_flight:
            await asyncio.sleep(0.01)
    assert (await silent.row(made)).outcome["result"]["text"] == "in time"


async def test_a_result_waits_for_a_database_that_is_away(world, caplog):
    hold = asyncio.Event()
    here = world(lambda _: [started(), Pause(hold), *answering("so")])
    made = await here.accept()
    await here.until(made, "running")
    here.away = 12
    hold.set()
    row = await here.until(made, "succeeded")
    assert row.outcome["result"]["text"] == "so" and len(here.engine.requests) == 1
    assert "not written yet" in caplog.text


async def test_a_batch_is_ended_by_the_runner(world):
    world(in_turn(answering("so"), [ContextOverflow("too long")], answering("so")))
    lines = [Line(number, "", {"prompt": f"why {number}?"}) for number in (1, 2, 3)]
    batch, _ = await sync_to_async(durable_tasks.accept_batch)("scout", lines, Once(), time.time(), 10)
    async with asyncio.timeout(5):
        while (await sync_to_async(durable_tasks.find_batch)(batch.public_id)).finished_at is None:
            await asyncio.sleep(0.01)
    counts = (await sync_to_async(durable_tasks.progress)([batch]))[batch.number]
    assert (counts["succeeded"], counts["failed"]) == (2, 1)
