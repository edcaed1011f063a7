"""Several nodes in the service: their rows, their own memory and slots, their drain, and what the API shows."""

import asyncio

import pytest

from controlplane import launch, seed, stores
from controlplane.control import Action, NotHere
from controlplane.models import AuditEntry, Node
from controlplane.service import Service
from optimizer.backends.simulated import SimulatedBackend
from optimizer.core.errors import ConfigurationError

pytestmark = pytest.mark.django_db(transaction=True)

OPTIONS = {"backend": "simulated", "ollama_url": None, "models_dir": None, "speed": 200.0, "embedder": "wordllama"}


def launched(nodes: int) -> Service:
    seed.seed()
    return launch.service({**OPTIONS, "nodes": nodes}, launch.embedder(OPTIONS), lambda line: None)


@pytest.fixture
async def service():
    served = await asyncio.to_thread(launched, 2)
    await served.start()
    yield served
    await served.stop()


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def states(service: Service) -> list[str]:
    return [node.state for node in service.runner.views()]


async def test_a_node_is_drained_and_resumed_by_name(service):
    done = await service.control.act(Action.DRAIN_NODE, "simulated-2", "ann")
    assert done.undo is Action.RESUME_NODE and "simulated-2" in done.sentence
    await until(lambda: states(service) == ["ready", "drained"])
    steering = await service.desk.steering()
    assert steering["nodes"] == {"simulated": "ready", "simulated-2": "drained"}
    await service._take_notes()
    assert await service.in_database(_row) == ("drained", "")
    await service.control.act(Action.RESUME_NODE, "simulated-2", "ann")
    assert states(service) == ["ready", "ready"]
    assert await service.in_database(AuditEntry.objects.filter(target="node simulated-2").count) == 2
    with pytest.raises(NotHere, match="there are simulated, simulated-2"):
        await service.control.act(Action.DRAIN_NODE, "elsewhere", "ann")


async def test_the_picture_has_every_node(service):
    picture = await service.desk.snapshot()
    assert [node["name"] for node in picture["nodes"]] == ["simulated", "simulated-2"]
    assert [node["slots"] for node in picture["nodes"]] == [[0, 1], [2, 3]]
    assert [slot["slot"] for slot in picture["slots"]] == [0, 1, 2, 3]
    assert picture["vram"] == picture["nodes"][0]["vram"]


async def test_memory_and_slots_of_one_node_take_effect_while_it_runs(service):
    await service.in_database(lambda: Node.objects.filter(name="simulated-2").update(slots=1, gpu_memory_mb=2048))
    await service.refresh()
    first, second = service.runner.views()
    assert (len(first.view.slots), len(second.view.slots)) == (2, 1)
    assert second.view.usable_mb == pytest.approx(0.9 * 2048) and first.view.usable_mb == pytest.approx(0.9 * 4096)


def _row() -> tuple[str, str]:
    return Node.objects.values_list("state", "state_reason").get(name="simulated-2")


def test_a_card_has_the_memory_of_its_node():
    launched(1)
    Node.objects.filter(name="simulated").update(gpu_memory_mb=8192)
    assert [card.usable_mb for card in launch._cards(2)] == [pytest.approx(0.9 * 8192), pytest.approx(3686.4)]


def test_nodes_are_called_by_their_address_and_keep_their_names():
    assert stores.node_name("ollama", "http://10.0.0.1:11434") == "ollama"
    stores.node_started("ollama", "http://10.0.0.1:11434")
    second = stores.node_name("ollama", "http://gpu2.lan:11434", 2)
    assert second == "ollama-gpu2-lan-11434"
    stores.node_started("ollama", "http://gpu2.lan:11434", {}, second)
    assert stores.node_name("ollama", "http://gpu2.lan:11434", 1) == second
    assert stores.node_name("simulated", "", 3) == "simulated-3"


def test_nodes_that_are_switched_off_are_left_out_while_another_remains():
    launched(3)
    Node.objects.filter(name="simulated-2").update(enabled=False)
    assert [site.name for site in launch._noted([SimulatedBackend()] * 3, [""] * 3)] == ["simulated", "simulated-3"]
    Node.objects.update(enabled=False)
    with pytest.raises(ConfigurationError, match="switched off"):
        launch._noted([SimulatedBackend()] * 3, [""] * 3)


def test_a_service_needs_a_sensible_number_of_nodes():
    with pytest.raises(ConfigurationError, match="--nodes"):
        launched(0)
