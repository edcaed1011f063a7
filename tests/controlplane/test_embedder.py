"""The service with an embedder on the same Ollama that serves the agents: each has its models to itself."""

import asyncio
from dataclasses import replace

import pytest
from django.core.management import CommandError, call_command

from controlplane import seed
from controlplane.service import Service
from optimizer import embedding
from optimizer.backends.ollama import OllamaBackend
from optimizer.core.errors import ConfigurationError
from optimizer.core.request import Kind, Message, Request
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.ports import Completed, Started
from tests.ollama_server import OllamaServer

pytestmark = pytest.mark.django_db(transaction=True)

TINY = STRATEGY_CATALOGUE.models["tinyllama"]
MODELS = dict(STRATEGY_CATALOGUE.models) | {"all-minilm": replace(TINY, name="all-minilm", footprint_mb=60.0)}


@pytest.fixture
async def server():
    async with OllamaServer(speed=500, specs=MODELS) as running:
        yield running


def service(server: OllamaServer, model: str = "all-minilm") -> Service:
    embed = embedding.for_serving(f"ollama:{model}", ollama_url=server.url)
    return Service(OllamaBackend(server.url, aside={model}), embed)


async def ask(served: Service, number: int, text: str) -> tuple[Started, Completed]:
    request = Request(f"r{number}", "debugger", Kind.CHAT, (Message("user", text),), wanted="default")
    replies = [reply async for reply in served.runner.submit(request)]
    return next(r for r in replies if isinstance(r, Started)), replies[-1]


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_rewording_is_found_by_ollamas_vectors_and_the_tiers_never_see_the_embedders_model(server):
    served = service(server)
    await served.in_database(seed.seed)
    await served.start()
    try:
        first, answer = await ask(served, 1, "How do I expose port 8080?")
        again, same = await ask(served, 2, "how do i expose port 8080")
        assert (first.cache, again.cache) == ("miss", "semantic") and same.text == answer.text
        assert server.stats.loads["all-minilm:latest"] == 1
        assert "all-minilm" not in {info.name for info in await served.backend.models()}
        assert "all-minilm" not in {resident.model for resident in await served.backend.residents()}
        assert "all-minilm" not in served.runner.catalogue().models
        sent = {str(body["options"]) for route, body in server.bodies if body["model"] == "all-minilm"}
        assert len(sent) == 1  # one profile: nothing reloads it
    finally:
        await served.stop()


async def test_a_model_that_serves_agents_is_refused_as_embedder(server):
    served = service(server, "tinyllama")
    await served.in_database(seed.seed)
    try:
        with pytest.raises(ConfigurationError, match="tinyllama serves agents"):
            await served.start()
    finally:
        await served.stop()


async def test_an_embedder_that_is_not_there_costs_semantic_hits_and_nothing_else(server, caplog):
    served = service(server, "nomic-embed-text")
    await served.in_database(seed.seed)
    await served.start()
    try:
        first, answer = await ask(served, 1, "How do I expose port 8080?")
        again, _ = await ask(served, 2, "How do I expose port 8080?")
        assert (first.cache, again.cache) == ("miss", "exact") and answer.text
        [decision] = [d for d in first.decisions if d.stage == "cache"]
        assert "ollama pull nomic-embed-text" in decision.reason
        await until(lambda: "exact repeats only until the embedder answers" in caplog.text)
    finally:
        await served.stop()


@pytest.mark.parametrize("command", [["up"], ["evaluate", "cache", "--data", "none.jsonl"]])
def test_commands_refuse_an_unknown_embedder_at_once(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.jsonl").write_text('{"a": "x", "b": "x", "label": 1}')
    with pytest.raises(CommandError, match="no embedder 'bge'; choose wordllama, minilm or ollama:MODEL"):
        call_command(*command, "--embedder", "bge")
