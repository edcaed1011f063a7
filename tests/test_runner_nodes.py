"""The runner with two nodes in real time: one dies at the worst moments, is drained, and comes back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from optimizer.backends.simulated import SimulatedBackend
from optimizer.core import events
from optimizer.core.errors import BackendError, BackendUnavailable, GenerationFailed
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue
from optimizer.nodes import NodeView, Site
from optimizer.ports import Completed, Delta
from tests.test_runner import House, request, until

NAMES = ("left", "right")


class Mortal(SimulatedBackend):
    """Stays dead until the test revives it."""

    down = False

    def kill(self) -> None:
        self.down = True
        self.die()

    async def recover(self) -> None:
        if self.down:
            raise BackendUnavailable("still down")
        await super().recover()


class TwoNodes(House):
    def __init__(self, speed: float) -> None:
        self.backends = {name: Mortal(speed=speed, probe_timeout_s=0.2) for name in NAMES}
        super().__init__(
            changed(Thresholds(), {"batch_window_ms": 1, "probe_interval_s": 0.3}),
            backend=[Site(name, backend) for name, backend in self.backends.items()],
        )

    def node(self, name: str) -> NodeView:
        return next(view for view in self.runner.views() if view.name == name)

    def running_on(self, name: str) -> list[str]:
        return [slot.job_id for slot in self.node(name).view.slots if slot.job_id]

    def where(self, job_id: str) -> str:
        return self.runner.scheduler.node_of(job_id)


async def started(speed: float) -> AsyncIterator[TwoNodes]:
    made = TwoNodes(speed)
    await made.runner.start()
    await until(lambda: all(any(r.place == "loaded" for r in view.view.residents) for view in made.runner.views()))
    yield made
    await made.runner.close()


@pytest.fixture
async def house() -> AsyncIterator[TwoNodes]:
    async for made in started(20.0):
        yield made


async def test_both_nodes_serve_at_once_and_their_slots_are_numbered_through(house):
    tasks = [asyncio.create_task(house.ask(f"question {n}")) for n in range(4)]
    await until(lambda: len(house.runner.running()) == 4)
    assert [len(house.running_on(name)) for name in NAMES] == [2, 2]
    assert [slot.slot for slot in house.runner.view()[0].slots] == [0, 1, 2, 3]
    assert [view.first_slot for view in house.runner.views()] == [0, 2]
    for task in tasks:
        assert isinstance((await task)[-1], Completed)
    assert {bar.slot for bar in house.runner.journal.bars if bar.kind == "run"} == {0, 1, 2, 3}


async def test_a_node_that_dies_in_prefill_has_its_request_answered_by_the_other(house):
    asked = request("long one " * 400, model="deepseek-r1:8b")
    task = asyncio.create_task(_replies(house, asked))
    await until(lambda: any(f.slot is not None and not f.items for f in house.runner.running()))
    victim = house.where(asked.id)
    house.backends[victim].kill()
    replies = await task
    assert isinstance(replies[-1], Completed) and sum(isinstance(r, Completed) for r in replies) == 1
    assert house.node(victim).state == "lost" and "down" in house.node(victim).reason
    assert not house.runner.unready()
    [record] = house.memory.records
    assert record.status == "replied"


async def test_a_node_that_dies_mid_stream_ends_that_stream_with_an_error_and_no_other(house):
    asked = [request(f"question {n}", model="sonnet") for n in range(4)]
    tasks = [asyncio.create_task(_replies(house, one)) for one in asked]
    await until(lambda: sum(bool(f.items) for f in house.runner.running()) == 4)
    doomed = set(house.running_on("left"))
    house.backends["left"].kill()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one, end in zip(asked, ended, strict=True):
        if one.id in doomed:
            assert isinstance(end, GenerationFailed) and "lost" in str(end)
        else:
            assert isinstance(end[-1], Completed)
    assert doomed and len(doomed) < 4
    assert sorted(record.status for record in house.memory.records) == sorted(
        ["failed"] * len(doomed) + ["replied"] * (4 - len(doomed))
    )


async def test_a_node_that_dies_in_load_has_its_requests_answered_by_the_other(house):
    asked = request("load it", model="deepseek-r1:8b")
    task = asyncio.create_task(_replies(house, asked))
    await until(lambda: any(view.view.swap.startswith("loading deepseek") for view in house.runner.views()))
    house.backends[house.where(asked.id)].kill()
    assert isinstance((await task)[-1], Completed)
    assert [record.status for record in house.memory.records] == ["replied"]


async def test_a_dead_node_is_fenced_and_comes_back_by_itself(house, monkeypatch):
    monkeypatch.setattr("optimizer.node.RECOVERY_EVERY_S", 0.05)
    house.backends["left"].kill()
    await until(lambda: house.node("left").state == "lost")
    await asyncio.gather(*(house.ask(f"while it is down {n}") for n in range(4)))
    assert {bar.slot for bar in house.runner.journal.bars if bar.kind == "run"} <= {2, 3}
    house.backends["left"].down = False
    await until(lambda: any(resident.place == "loaded" for resident in house.node("left").view.residents))
    assert house.node("left").state == "ready"
    tasks = [asyncio.create_task(house.ask(f"after it is back {n}")) for n in range(4)]
    await until(lambda: house.running_on("left"))
    await asyncio.gather(*tasks)


async def test_with_every_node_dead_nothing_can_be_served_and_it_says_so(house):
    for name in NAMES:
        house.backends[name].kill()
    await until(lambda: bool(house.runner.unready()))
    with pytest.raises(BackendUnavailable, match=r"dead|down"):
        await house.ask()
    with pytest.raises(BackendError):
        await house.runner.models()


async def test_a_drained_node_ends_its_runs_empties_and_serves_again_when_resumed(house):
    tasks = [asyncio.create_task(house.ask(f"question {n}")) for n in range(4)]
    await until(lambda: len(house.runner.running()) == 4)
    house.runner.steer(events.NodeDrained(), "left")
    assert house.node("left").state == "draining"
    for task in tasks:
        assert isinstance((await task)[-1], Completed)
    await until(lambda: house.node("left").state == "drained" and not house.node("left").view.residents)
    await asyncio.gather(*(house.ask(f"elsewhere {n}") for n in range(4)))
    assert not house.node("left").view.residents
    house.runner.steer(events.NodeResumed(), "left")
    await until(lambda: house.node("left").state == "ready" and bool(house.node("left").view.residents))


async def test_each_node_has_its_own_memory_slots_and_models(house):
    only_tiny = Catalogue({}, {"tinyllama": STRATEGY_CATALOGUE.models["tinyllama"]})
    house.runner.reconfigure(
        catalogue=STRATEGY_CATALOGUE,
        thresholds=house.runner.pipeline.thresholds,
        agents=house.runner.agents,
        own={"left": {"slots": 1, "gpu_memory_mb": 1024}},
        catalogues={"left": only_tiny},
    )
    left, right = house.runner.views()
    assert (len(left.view.slots), left.view.usable_mb) == (1, pytest.approx(0.9 * 1024))
    assert (right.first_slot, len(right.view.slots)) == (1, 2)
    asked = request("only the right one has it", model="sonnet")
    replies = house.runner.submit(asked)
    await anext(replies)
    assert house.where(asked.id) == "right"
    await replies.aclose()


async def _replies(house: TwoNodes, asked) -> list:
    replies = [reply async for reply in house.runner.submit(asked)]
    text = "".join(reply.text for reply in replies if isinstance(reply, Delta))
    assert text == replies[-1].text
    return replies
