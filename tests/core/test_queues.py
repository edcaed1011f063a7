"""The queue of one model: order, fairness between agents, removal, and what each promises."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.queues import FRONT, Entry, ModelQueue
from optimizer.core.request import Priority
from tests.core.machine import job

EVERY = 1_000_000  # never the longest waiting, unless a test wants it


def entry(id: str, agent: str = "", cost_s: float = 1.0, seq: int = 0, **more: object) -> Entry:
    return Entry(job(id, agent=agent or id, **more), arrived=float(seq), seq=seq, cost_s=cost_s)


def started(queue: ModelQueue, every: int = EVERY) -> list[str]:
    """Start everything that waits, in order."""
    ids = []
    while (next_one := queue.next(every)) is not None:
        queue.start(next_one)
        ids.append(next_one.job.id)
    return ids


def filled(order: str, *entries: Entry) -> ModelQueue:
    queue = ModelQueue(order)
    for one in entries:
        queue.push(one)
    return queue


def test_fifo_is_the_order_of_arrival() -> None:
    assert started(filled("fifo", entry("a", seq=1, cost_s=9), entry("b", seq=2, cost_s=1))) == ["a", "b"]


def test_shortest_is_the_order_of_predicted_length() -> None:
    assert started(filled("shortest", entry("a", cost_s=9), entry("b", cost_s=1))) == ["b", "a"]


def test_wfq_starts_the_shortest_among_agents_with_equal_service() -> None:
    assert started(filled("wfq", entry("long", cost_s=9), entry("short", cost_s=1))) == ["short", "long"]


def test_wfq_lets_an_agent_race_only_with_its_oldest() -> None:
    own = [entry(f"own-{n}", "chatty", cost_s=1, seq=n) for n in range(40)]
    order = started(filled("wfq", *own, entry("other", cost_s=4, seq=99)))
    assert order.index("other") < 30
    assert [id for id in order if id != "other"] == [one.job.id for one in own]


def test_wfq_gives_busy_agents_time_in_proportion_to_their_weights() -> None:
    queue = ModelQueue("wfq")
    for n in range(200):
        queue.push(entry(f"a{n}", "double", seq=2 * n, weight=2.0))
        queue.push(entry(f"b{n}", "single", seq=2 * n + 1, weight=1.0))
    first = started(queue)[:90]
    assert sum(id[0] == "a" for id in first) == pytest.approx(60, abs=9)


def test_an_agent_pays_for_what_its_requests_really_cost() -> None:
    queue = filled(
        "wfq", *(entry(f"a{n}", "a", seq=n) for n in range(3)), *(entry(f"b{n}", "b", seq=9) for n in range(3))
    )
    queue.start(queue.first())  # a's first
    queue.charge("a", 1.0, extra_s=100.0)
    queue.push(entry("a9", "a", seq=10))
    assert started(queue)[-1] == "a9"


def test_higher_priorities_go_first_but_not_at_every_nth_start() -> None:
    batch = entry("patient", seq=0, priority=Priority.BATCH)
    hot = [entry(f"hot-{n}", seq=n + 1, priority=Priority.INTERACTIVE) for n in range(6)]
    assert started(filled("wfq", batch, *hot)).index("patient") == 6
    assert started(filled("wfq", *(replace(one) for one in (batch, *hot))), every=3).index("patient") == 2


def test_a_requeued_request_goes_before_everybody() -> None:
    queue = filled("wfq", entry("vip", priority=Priority.INTERACTIVE))
    queue.push_front(entry("again", priority=Priority.BATCH))
    assert queue.first().rank == FRONT
    assert started(queue) == ["again", "vip"]


def test_fitting_takes_the_first_in_order_that_is_short_enough() -> None:
    queue = filled("fifo", entry("a", cost_s=9, seq=1), entry("b", cost_s=2, seq=2), entry("c", cost_s=1, seq=3))
    assert queue.fitting(3.0).job.id == "b"
    assert queue.fitting(0.5) is None


def test_another_order_applies_to_those_already_waiting() -> None:
    queue = filled("fifo", entry("a", cost_s=9, seq=1), entry("b", cost_s=1, seq=2))
    queue.reorder("shortest")
    assert started(queue) == ["b", "a"]


@given(
    st.sampled_from(["wfq", "shortest", "fifo"]),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 9), st.sampled_from(["push", "remove", "start", "front"]))),
)
def test_the_queue_holds_exactly_who_joined_and_did_not_leave(order, steps) -> None:
    queue, waiting = ModelQueue(order), []
    for seq, (agent, cost_s, step) in enumerate(steps):
        if step in ("push", "front"):
            one = entry(f"j{seq}", f"agent-{agent}", cost_s, seq)
            queue.push(one) if step == "push" else queue.push_front(one)
            waiting.append(one)
        elif waiting and step == "remove":
            queue.remove(waiting.pop(agent % len(waiting)))
        elif waiting:
            one = queue.next(3)
            queue.start(one)
            waiting.remove(one)
        assert len(queue) == len(waiting) == sum(queue.agents.values())
        assert sorted(one.seq for one in queue) == sorted(one.seq for one in waiting)
        assert queue.work_s == pytest.approx(sum(one.cost_s for one in waiting), abs=1e-6)
        assert (queue.oldest() is None) == (not waiting)
    assert len(started(queue)) == len(waiting)


def test_what_leaves_lazily_is_swept_out() -> None:
    queue = ModelQueue("shortest")
    stays = entry("stays", cost_s=99, seq=0)
    queue.push(stays)
    for seq in range(1, 5000):
        one = entry(f"j{seq}", seq=seq)
        queue.push(one)
        queue.remove(one)
    assert len(queue._ready) + len(queue._arrivals) < 300
