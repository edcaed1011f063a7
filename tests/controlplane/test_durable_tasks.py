"""Durable tasks in the database: accepted once, claimed by one, ended once. Runs on SQLite and on Postgres alike."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection

from controlplane import durable_tasks, stores
from controlplane.durable_tasks import KeyReused, Line, Once
from controlplane.models import Batch, DurableTask
from controlplane.stores import durable
from controlplane.stores.durable import shares
from optimizer.core.errors import AgentLimit
from optimizer.core.request import Priority

NOW = 1_790_000_000.0
LEASE_S = 8.0
PLENTY = {Priority.INTERACTIVE: 50, Priority.AGENT: 50, Priority.BATCH: 50}
BODY = {"prompt": "why?"}

pytestmark = pytest.mark.django_db


def accept(agent: str = "scout", once: Once = Once(), at: float = NOW, most: int = 1000, **body) -> DurableTask:  # noqa: B008
    return durable_tasks.accept(agent, {**BODY, **body}, Priority.AGENT, once, at, most)[0]


def claim(runner: str = "r1", at: float = NOW, free=PLENTY, having=None) -> list[durable.Held]:
    return durable.claim(runner, free, having or {}, at, LEASE_S)


def now_is(task) -> tuple[str, str, int]:
    row = DurableTask.objects.get(public_id=task.public_id)
    return row.status, row.claim, row.attempts


def at_once(count: int, work) -> list:
    """What each of `count` threads got from `work`, begun together on connections of their own."""
    barrier = Barrier(count)

    def one(number: int):
        try:
            barrier.wait(10)
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


# --- accepting ----------------------------------------------------------------------------------------------


def test_a_key_names_one_task_and_refuses_another_body():
    once = Once("k", durable_tasks.fingerprint(BODY))
    first, new = durable_tasks.accept("scout", BODY, Priority.AGENT, once, NOW, 10)
    again, newer = durable_tasks.accept("scout", BODY, Priority.AGENT, once, NOW + 9, 10)
    assert (first.pk, new, newer) == (again.pk, True, False)
    with pytest.raises(KeyReused, match=first.public_id):
        accept(once=Once("k", durable_tasks.fingerprint({"prompt": "else"})))
    assert accept("other", once).pk != first.pk, "keys are each agent's own"
    assert accept().pk != accept().pk


@pytest.mark.django_db(transaction=True)
def test_of_many_calls_with_one_key_at_once_one_makes_the_task():
    once = Once("k", "f")
    made = at_once(6, lambda _: durable_tasks.accept("scout", BODY, Priority.AGENT, once, NOW, 10))
    assert len({task.pk for task, _ in made}) == 1 == DurableTask.objects.count()
    assert sorted(new for _, new in made) == [False] * 5 + [True]
    lines = [Line(1, "", BODY), Line(2, "", BODY)]
    batches = at_once(4, lambda _: durable_tasks.accept_batch("scout", lines, once, NOW, 10))
    assert len({batch.pk for batch, _ in batches}) == 1 and DurableTask.objects.exclude(batch=None).count() == 2


def test_an_agent_may_have_only_so_many_unfinished():
    accept(most=2)
    accept(most=2)
    with pytest.raises(AgentLimit, match="2 unfinished"):
        accept(most=2)
    with pytest.raises(AgentLimit):
        durable_tasks.accept_batch("scout", [Line(1, "", BODY)], Once(), NOW, 2)
    assert not Batch.objects.exists(), "nothing of it is stored"
    accept("other", most=2)
    durable.finish(claim()[0], "succeeded", NOW)
    accept(most=2)


def test_listings_go_back_page_by_page_and_show_an_agents_own():
    made = [accept().number for _ in range(5)]
    accept("other")
    pages, cursor = [], None
    while page := durable_tasks.listed(2, cursor, agent="scout"):
        pages += [row.number for row in page]
        cursor = page[-1].number
    assert pages == made[::-1]
    assert durable_tasks.listed(9, agent="scout", status="running") == []
    task = durable_tasks.listed(1, agent="scout")[0]
    assert durable_tasks.find(task.public_id, "other") is None
    assert durable_tasks.find(task.public_id, "scout") == durable_tasks.find(task.public_id) == task


# --- claims -------------------------------------------------------------------------------------------------


def test_places_are_shared_out_to_who_has_least():
    assert shares({"a": 9, "b": 9}, {}, 4) == {"a": 2, "b": 2}
    assert shares({"a": 9, "b": 1}, {}, 4) == {"a": 3, "b": 1}
    assert shares({"a": 9, "b": 9}, {"a": 3}, 2) == {"b": 2}
    assert shares({"a": 1}, {}, 4) == {"a": 1} and shares({}, {}, 4) == {}


def test_a_flood_of_one_agent_or_class_leaves_room_for_others():
    flood = [accept("flood") for _ in range(20)]
    late = accept("late")
    durable_tasks.accept_batch("flood", [Line(n, "", BODY) for n in range(1, 9)], Once(), NOW, 1000)
    held = claim(free={Priority.AGENT: 4, Priority.BATCH: 2, Priority.INTERACTIVE: 2})
    assert [h.public_id for h in held if h.priority == Priority.AGENT] == [
        *(task.public_id for task in flood[:3]),
        late.public_id,
    ]
    assert sum(h.priority == Priority.BATCH for h in held) == 2
    assert claim(free={Priority.AGENT: 0}) == []


@pytest.mark.django_db(transaction=True)
def test_runners_that_claim_at_once_never_get_the_same_task():
    made = {accept().number for _ in range(40)}

    def take(number: int) -> list[int]:
        got = []
        while held := durable.claim(f"r{number}", {Priority.AGENT: 3}, {}, NOW, LEASE_S):
            got += [h.number for h in held]
        return got

    got = at_once(4, take)
    assert sorted(number for numbers in got for number in numbers) == sorted(made)


def test_a_result_is_taken_only_under_the_claim_that_is_held():
    task = accept()
    [old] = claim("r1")
    durable.begun(old, NOW)
    assert durable.requeue_lost("r2", NOW + LEASE_S - 1, 5) == 0, "the lease runs"
    assert durable.requeue_lost("r1", NOW + LEASE_S + 1, 5) == 0, "nobody takes what is its own"
    assert durable.requeue_lost("r2", NOW + LEASE_S + 1, 5) == 1
    [new] = claim("r2", NOW + 10)
    assert new.epoch == old.epoch + 1 and new.attempts == 1
    assert not durable.finish(old, "succeeded", NOW + 10, outcome={"result": "late"})
    assert not durable.begun(old, NOW + 10) and not durable.give_back(old, 0, NOW + 10)
    assert durable.finish(new, "succeeded", NOW + 11, outcome={"result": "good", "model": "m"})
    assert not durable.finish(new, "failed", NOW + 12)
    row = DurableTask.objects.get(pk=task.pk)
    assert (row.status, row.outcome["result"], row.model, row.claim, row.lost) == ("succeeded", "good", "m", "", 1)


def test_a_lease_that_is_renewed_keeps_the_task():
    accept()
    [held] = claim("r1")
    assert durable.renew("r1", NOW + 7, LEASE_S) == {(held.number, held.epoch)}
    assert durable.requeue_lost("r2", NOW + 12, 5) == 0
    assert durable.renew("r2", NOW, LEASE_S) == frozenset()


def test_what_kills_every_runner_is_given_up_at_last():
    task, at = accept(), NOW
    for _ in range(5):
        [held] = claim("r1", at)
        durable.begun(held, at)
        at += 100
        durable.requeue_lost("r2", at, 5)
    row = DurableTask.objects.get(pk=task.pk)
    assert (row.status, row.error["type"]) == ("failed", "gave_up") and "5 attempts" in row.error["message"]
    queued, tries = accept("unlucky"), 0
    while now_is(queued)[0] == "queued":
        claim("r1", at)
        at, tries = at + 100, tries + 1
        durable.requeue_lost("r2", at, 5)
    assert tries == durable.MOST_LOST, "even one that dies before it begins"


def test_a_clock_that_is_set_back_or_ahead_stops_nothing():
    hour = 3600.0
    accept(), accept("other")
    assert len(claim("dead", NOW)) == 2
    assert durable.requeue_lost("r2", NOW - hour, 5) == 2, "the dead one's lease would last another hour"
    held = claim("r2", NOW - hour)
    assert len(held) == 2 and all(durable.give_back(one, 60, NOW - hour) for one in held)
    assert claim("r2", NOW - hour + 59) == [] and len(claim("r2", NOW - 2 * hour)) == 2
    assert durable.requeue_lost("r2", NOW + hour, 5) == 0, "nobody takes what is its own"


def test_giving_back_keeps_what_counts():
    accept()
    [held] = claim()
    assert durable.give_back(held, 30, NOW)
    assert claim(at=NOW + 29) == []
    [held] = claim(at=NOW + 31)
    assert durable.give_back(held, 0, NOW + 31, counted=True)
    [held] = claim(at=NOW + 31)
    assert held.attempts == 1
    durable.begun(held, NOW + 31)
    waiting = accept()
    claim(at=NOW + 31)
    assert durable.give_all_back("r1") == 2
    assert now_is(waiting) == ("queued", "", 0)
    assert DurableTask.objects.get(pk=held.number).attempts == 1, "a stop does not count"


def test_a_prompt_that_is_not_to_be_kept_goes_with_the_end():
    accept()
    [held] = claim()
    durable.finish(held, "failed", NOW, error={"type": "x", "message": "y"}, keep_prompt=False)
    assert DurableTask.objects.get().body == {}
    assert durable.requeue(DurableTask.objects.all(), NOW) == 0, "there is nothing to run"


# --- cancelling, batches, retention ---------------------------------------------------------------------------


def test_cancelled_is_cancelled_whoever_runs_it():
    waiting, running = accept(), accept("other")
    held = next(h for h in claim(free={Priority.AGENT: 9}) if h.public_id == running.public_id)
    durable.begun(held, NOW)
    assert durable_tasks.cancel(running, NOW) and durable_tasks.cancel(waiting, NOW)
    assert not durable.finish(held, "succeeded", NOW, outcome={"result": "late"})
    assert durable.renew("r1", NOW, LEASE_S) == frozenset()
    assert {row.status for row in DurableTask.objects.all()} == {"cancelled"}
    assert not durable_tasks.cancel(running, NOW)
    assert durable.requeue(DurableTask.objects.all(), NOW + 1) == 2
    assert len(claim(at=NOW + 1)) == 2


def test_a_batch_ends_with_its_last_task_and_is_counted_meanwhile():
    batch, _ = durable_tasks.accept_batch("scout", [Line(n, f"c{n}", BODY) for n in (1, 2, 4)], Once(), NOW, 99)
    first, second, third = claim()
    assert {h.priority for h in (first, second, third)} == {Priority.BATCH}
    durable.finish(second, "succeeded", NOW, outcome={"result": 2})
    durable.begun(first, NOW)
    assert durable.end_batches(NOW) == 0
    counts = durable_tasks.progress([batch])[batch.number]
    assert counts == {"queued": 1, "running": 1, "succeeded": 1, "failed": 0, "cancelled": 0}
    assert [row.line for row in durable_tasks.ended_lines(batch, 0, 9)] == [2]
    durable.finish(third, "failed", NOW, error={"type": "t", "message": "m"})
    durable.finish(first, "succeeded", NOW, outcome={"result": 1})
    assert (durable.end_batches(NOW), durable.end_batches(NOW)) == (1, 0)
    assert [(row.line, row.custom_id) for row in durable_tasks.ended_lines(batch, 0, 9)] == [
        (1, "c1"), (2, "c2"), (4, "c4"),
    ]  # fmt: skip
    assert [row.line for row in durable_tasks.ended_lines(batch, 2, 9)] == [4]
    assert durable_tasks.status_of(Batch.objects.get()) == "finished"


def test_cancelling_a_batch_keeps_the_results_there_are():
    batch, _ = durable_tasks.accept_batch("scout", [Line(n, "", BODY) for n in range(1, 5)], Once(), NOW, 99)
    alone = accept()
    done, *_ = claim(free={Priority.BATCH: 2})
    durable.finish(done, "succeeded", NOW, outcome={"result": 1})
    assert durable_tasks.cancel_batch(batch, NOW) == 3
    batch.refresh_from_db()
    assert durable_tasks.status_of(batch) == "cancelled" and batch.finished_at
    assert now_is(alone)[0] == "queued"


def test_retention_takes_what_ended_long_ago_and_nothing_else():
    day = 86_400.0
    old, open_still = accept(), accept("other")
    held = next(h for h in claim() if h.public_id == old.public_id)
    durable.finish(held, "succeeded", NOW)
    batch, _ = durable_tasks.accept_batch("scout", [Line(1, "", BODY), Line(2, "", BODY)], Once(), NOW, 99)
    durable_tasks.cancel_batch(batch, NOW)
    keep = {"record_retention_days": 7, "prompt_retention_hours": 168, "cache_ttl_s": 60, "task_retention_days": 30}
    assert stores.delete_old(NOW + 29 * day, **keep)["tasks"] == 0
    deleted = stores.delete_old(NOW + 31 * day, **keep)
    assert (deleted["tasks"], deleted["batches"]) == (3, 1)
    assert [row.public_id for row in DurableTask.objects.all()] == [open_still.public_id]


def test_ten_thousand_lines_are_stored_and_claimed_in_reasonable_time():
    lines = [Line(number, f"c{number}", BODY) for number in range(1, 10_001)]
    started = time.monotonic()
    durable_tasks.accept_batch("scout", lines, Once(), NOW, 20_000)
    assert len(claim()) == 50
    assert durable_tasks.counts()["queued"] == 10_000
    assert time.monotonic() - started < 20.0
