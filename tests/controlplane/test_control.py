"""Live control on a real engine with the simulated card: each action does what it says, is audited, and undone."""

import asyncio

import pytest

from controlplane import seed
from controlplane.control import ABOUT, Action, NotHere
from controlplane.models import Agent, AuditEntry
from controlplane.service import Service
from optimizer.backends.simulated import SimulatedBackend
from optimizer.core.errors import Cancelled, IntakePaused
from optimizer.core.request import Kind, Message, Request

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def service():
    backend = SimulatedBackend(speed=200.0)
    served = Service(backend)
    await served.in_database(seed.seed)
    await served.start()
    yield served
    await served.stop()


def request(number: int = 1, **rest) -> Request:
    text = f"say {number} things"
    return Request(f"r{number}", "debugger", Kind.CHAT, (Message("user", text),), **{"wanted": "default", **rest})


async def answer(service: Service, asked: Request) -> str:
    return [item async for item in service.runner.submit(asked)][-1].text


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def loaded(service: Service) -> set[str]:
    return {r.model for r in service.runner.view()[0].residents if r.place == "loaded"}


async def test_everything_a_person_can_do(service):
    control = service.control
    await until(lambda: "tinyllama" in loaded(service))

    # pause and resume
    done = await control.act(Action.PAUSE, "", "ann")
    assert done.undo is Action.RESUME and control.intake == "paused"
    with pytest.raises(IntakePaused):
        await answer(service, request())
    await control.act(done.undo, "", "ann")
    assert control.intake == "open" and await answer(service, request())

    # pin, load, unload
    await control.act(Action.PIN, "tinyllama", "ann")
    assert next(r for r in service.runner.view()[0].residents if r.model == "tinyllama").pinned
    await control.act(Action.UNPIN, "tinyllama", "ann")
    await control.act(Action.UNLOAD, "tinyllama", "ann")
    await until(lambda: "tinyllama" not in loaded(service))
    await control.act(Action.LOAD, "tinyllama", "ann")
    await until(lambda: "tinyllama" in loaded(service))

    # an agent
    await control.act(Action.PAUSE_AGENT, "debugger", "ann")
    assert service.runner.agents["debugger"].paused
    await control.act(Action.RESUME_AGENT, "debugger", "ann")
    assert not service.runner.agents["debugger"].paused

    # a running request
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(failure(service, request(2, wanted="opus", options={"num_predict": 4000})))
        await until(lambda: any(flight.id == "r2" for flight in service.runner.running()))
        await control.act(Action.CANCEL, "r2", "ann")
    assert isinstance(asked.result(), Cancelled)

    # what is not there
    for action, target in (
        (Action.LOAD, "gpt-7"),
        (Action.CANCEL, "r2"),
        (Action.PAUSE_AGENT, "nobody"),
    ):
        with pytest.raises(NotHere, match=target):
            await control.act(action, target, "ann")

    entries = await service.in_database(lambda: list(AuditEntry.objects.filter(actor="ann").order_by("pk")))
    assert [(entry.action, entry.target) for entry in entries] == [
        ("pause", "intake"),
        ("resume", "intake"),
        ("pin", "model tinyllama"),
        ("unpin", "model tinyllama"),
        ("unload", "model tinyllama"),
        ("load", "model tinyllama"),
        ("pause-agent", "agent debugger"),
        ("resume-agent", "agent debugger"),
        ("cancel", "request r2"),
    ]
    assert not await service.in_database(Agent.objects.filter(paused=True).exists)


async def test_a_drain_ends_what_runs_puts_every_model_out_and_resuming_brings_them_back(service):
    control = service.control
    await until(lambda: "tinyllama" in loaded(service))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(answer(service, request(3, wanted="opus", options={"num_predict": 4000})))
        await until(service.runner.running)
        await control.act(Action.DRAIN, "", "ann")
        assert control.intake == "draining"
    assert running.result(), "what ran was let end"
    await until(lambda: control.intake == "drained" and not loaded(service))
    await control.act(Action.RESUME, "", "ann")
    await until(lambda: "tinyllama" in loaded(service))
    assert control.intake == "open"


async def failure(service: Service, asked: Request) -> Exception | None:
    try:
        await answer(service, asked)
    except Cancelled as error:
        return error
    return None


def test_every_action_is_described_and_undone_by_its_opposite():
    assert set(ABOUT) == set(Action)
    for action, about in ABOUT.items():
        assert about.undo is None or about.undo is not action
        assert ("{target}" in about.question) == bool(about.of)
