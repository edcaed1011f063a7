"""How a durable task moves: claimed, begun, given back, ended. Every move is one conditional UPDATE.

Rule: a claim is (runner, epoch). What a runner writes holds only while its claim does, so of two runners that both
believe in a task one result is stored, once. A claim ends with its lease unless it is renewed.
Must not know: who runs a task, or how.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, F, Min, OuterRef, Q, QuerySet

from controlplane import storable, webhooks
from controlplane.models import Batch, DurableTask

MOST_LOST = 20  # runners that may vanish with a task before it is blamed for it
FAR_S = 300.0  # no lease and no delay is that long: a time further ahead comes from a clock that has been set back
_AT_ONCE = 500  # lost tasks looked at in one go

Status = DurableTask.Status


@dataclass(frozen=True, slots=True)
class Held:
    """A task that this runner has claimed. Times in seconds since the epoch."""

    number: int
    public_id: str
    agent: str
    priority: int
    body: Mapping[str, Any]
    attempts: int  # begun before this claim
    created_at: float
    batched: bool
    claim: str
    epoch: int

    @property
    def request_id(self) -> str:
        return f"{self.public_id}.{self.epoch}"


# a runner's side -------------------------------------------------------------------------------------------


def claim(
    runner: str,
    free: Mapping[int, int],
    in_flight: Mapping[tuple[int, str], int],
    now: float,
    lease_s: float,
) -> list[Held]:
    """Take up to `free[priority]` tasks of each priority, shared out evenly over the agents that wait.

    `in_flight` counts what this runner has already, by (priority, agent).
    """
    lanes = [priority for priority, places in free.items() if places > 0]
    ready = DurableTask.objects.filter(_not_within("not_before", now), status=Status.QUEUED, claim="")
    waiting = list(
        ready.filter(priority__in=lanes)
        .order_by()
        .values("priority", "agent")
        .annotate(count=Count("number"), first=Min("number"))
    )
    taken: list[int] = []
    for priority in lanes:
        lane = sorted((row for row in waiting if row["priority"] == priority), key=lambda row: row["first"])
        having = {row["agent"]: in_flight.get((priority, row["agent"]), 0) for row in lane}
        for agent, share in shares({row["agent"]: row["count"] for row in lane}, having, free[priority]).items():
            taken += _take(ready.filter(priority=priority, agent=agent), share, runner, now, lease_s)
    return [_held(row) for row in DurableTask.objects.filter(pk__in=taken, claim=runner).order_by("number")]


def shares(waiting: Mapping[str, int], having: Mapping[str, int], free: int) -> dict[str, int]:
    """How many of `free` places each agent gets: always the one that has least, the first named of equals."""
    given: dict[str, int] = {}
    for _ in range(min(free, sum(waiting.values()))):
        agent = min(
            (name for name, count in waiting.items() if given.get(name, 0) < count),
            key=lambda name: having.get(name, 0) + given.get(name, 0),
        )
        given[agent] = given.get(agent, 0) + 1
    return given


def begun(held: Held, now: float) -> bool:
    """Its generation starts: an attempt. False when the claim is no longer held."""
    changes = {"status": Status.RUNNING, "started_at": storable.moment(now), "attempts": F("attempts") + 1}
    return bool(_claimed(held).update(**changes))


def finish(
    held: Held,
    status: str,
    now: float,
    *,
    outcome: Mapping[str, Any] | None = None,
    error: Mapping[str, str] | None = None,
    keep_prompt: bool = True,
) -> bool:
    """End a task with its result or error. False, and nothing written, when the claim is no longer held."""
    changes: dict[str, Any] = {"outcome": storable.json(outcome), "error": storable.json(error)}
    if outcome:
        changes["model"] = storable.text(str(outcome.get("model", "")), 120)
    if not keep_prompt:
        changes["body"] = {}
    with transaction.atomic():
        return _end(_claimed(held), held.agent, None if held.batched else held.number, status, now, **changes)


def give_back(held: Held, delay_s: float, now: float, *, counted: bool = False) -> bool:
    """To be tried again in `delay_s`; `counted` when a failure before it had begun is to count as an attempt."""
    later = {"not_before": storable.moment(now + delay_s), "attempts": F("attempts") + (1 if counted else 0)}
    return bool(_claimed(held).update(**_UNCLAIMED, **later))


def give_all_back(runner: str) -> int:
    """A runner stops: what it had is queued again, and what it had begun does not count."""
    mine = DurableTask.objects.filter(claim=runner)
    begun_ones = mine.filter(status=Status.RUNNING).update(**_UNCLAIMED, attempts=F("attempts") - 1)
    return begun_ones + mine.update(**_UNCLAIMED)


def renew(runner: str, now: float, lease_s: float) -> frozenset[tuple[int, int]]:
    """Extend the leases; (number, epoch) of every claim that the runner still has."""
    mine = DurableTask.objects.filter(claim=runner)
    mine.update(lease_until=storable.moment(now + lease_s))
    return frozenset(mine.order_by().values_list("number", "epoch"))


def requeue_lost(runner: str, now: float, most_attempts: int) -> int:
    """Queue what other runners held and let go of by silence; ends what has been tried too often."""
    silent = DurableTask.objects.filter(_not_within("lease_until", now)).exclude(claim="").exclude(claim=runner)
    rows = list(silent.order_by("number").defer("body", "outcome")[:_AT_ONCE])
    requeued = 0
    for row in rows:
        held = DurableTask.objects.filter(pk=row.pk, claim=row.claim, epoch=row.epoch)
        if row.attempts < most_attempts and row.lost + 1 < MOST_LOST:
            requeued += held.update(**_UNCLAIMED, lost=F("lost") + 1, not_before=storable.moment(now))
            continue
        tried = f"{row.attempts} attempts" if row.attempts >= most_attempts else f"{row.lost + 1} tries"
        error = {"type": "gave_up", "message": f"given up after {tried}: each time what ran it died"}
        with transaction.atomic():
            _end(held, row.agent, None if row.batch_id else row.pk, Status.FAILED, now, error=error, lost=F("lost") + 1)
    return requeued


def waiting() -> int:
    """How many tasks are queued that nobody has claimed."""
    return DurableTask.objects.filter(status=Status.QUEUED, claim="").count()


def end_batches(now: float) -> int:
    """Finish the batches whose last task has ended."""
    unfinished = DurableTask.objects.filter(batch=OuterRef("pk"), status__in=DurableTask.UNFINISHED)
    done = Batch.objects.filter(~Exists(unfinished), finished_at=None)
    ended = 0
    for batch in list(done):
        with transaction.atomic():
            if done.filter(pk=batch.pk).update(finished_at=storable.moment(now)):
                event = "batch.cancelled" if batch.cancelled_at else "batch.finished"
                webhooks.announce(batch.agent, event, now, batch_id=batch.pk)
                ended += 1
    return ended


# anybody's -------------------------------------------------------------------------------------------------


def cancel(tasks: QuerySet[DurableTask], now: float) -> int:
    """Cancel those that have not ended; a runner that has one finds its claim gone."""
    unfinished = tasks.filter(status__in=DurableTask.UNFINISHED)
    cancelled = 0
    for row in list(unfinished.filter(batch=None).only("number", "agent")):
        with transaction.atomic():
            cancelled += _end(unfinished.filter(pk=row.number), row.agent, row.number, Status.CANCELLED, now)
    moment = storable.moment(now)  # nobody is told of a batch's tasks one by one
    return cancelled + unfinished.update(status=Status.CANCELLED, claim="", lease_until=None, finished_at=moment)


def requeue(tasks: QuerySet[DurableTask], now: float) -> int:
    """Run failed and cancelled tasks again, from their first attempt; not those whose prompt was not kept."""
    requeued = 0
    for row in list(tasks.filter(status__in=(Status.FAILED, Status.CANCELLED)).exclude(body={}).only("pk", "batch_id")):
        with transaction.atomic():
            requeued += DurableTask.objects.filter(pk=row.pk, status__in=(Status.FAILED, Status.CANCELLED)).update(
                **_UNCLAIMED, attempts=0, lost=0, error=None, finished_at=None, not_before=storable.moment(now)
            )
            webhooks.forget(task_id=row.pk)
            if row.batch_id:
                Batch.objects.filter(pk=row.batch_id).update(finished_at=None, cancelled_at=None)
                webhooks.forget(batch_id=row.batch_id)
    return requeued


_UNCLAIMED: Mapping[str, Any] = {"status": Status.QUEUED, "claim": "", "lease_until": None}


def _not_within(field: str, now: float) -> Q:
    """That the time in `field` has come, or cannot be meant."""
    passed = Q(**{f"{field}__lte": storable.moment(now)})
    return passed | Q(**{f"{field}__gt": storable.moment(now + FAR_S)})


def _take(ready: QuerySet[DurableTask], count: int, runner: str, now: float, lease_s: float) -> list[int]:
    with transaction.atomic():
        # Postgres: rows that another runner is taking are passed over. SQLite: the transaction is the only writer.
        numbers = list(
            ready.order_by("number").select_for_update(skip_locked=True).values_list("number", flat=True)[:count]
        )
        ready.filter(pk__in=numbers).update(
            claim=runner, epoch=F("epoch") + 1, lease_until=storable.moment(now + lease_s)
        )
    return numbers


def _held(row: DurableTask) -> Held:
    return Held(
        number=row.number,
        public_id=row.public_id,
        agent=row.agent,
        priority=row.priority,
        body=row.body,
        attempts=row.attempts,
        created_at=row.created_at.timestamp(),
        batched=row.batch_id is not None,
        claim=row.claim,
        epoch=row.epoch,
    )


def _claimed(held: Held) -> QuerySet[DurableTask]:
    return DurableTask.objects.filter(pk=held.number, claim=held.claim, epoch=held.epoch)


def _end(which: QuerySet[DurableTask], agent: str, alone: int | None, status: str, now: float, **changes: Any) -> bool:
    """The one way to an end, inside the caller's transaction. `alone`: the number of a task outside a batch."""
    ended = which.update(**changes, status=status, claim="", lease_until=None, finished_at=storable.moment(now))
    if ended and alone is not None:
        webhooks.announce(agent, f"task.{status}", now, task_id=alone)
    return bool(ended)
