"""The simulated backend passes the contract, keeps the machine's durations, and breaks on demand."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from optimizer.backends.simulated import SimulatedBackend
from optimizer.core.errors import BackendUnavailable, GenerationFailed, LoadFailed, UnsupportedFeature
from optimizer.core.tiers import STRATEGY_CATALOGUE, ModelSpec
from optimizer.machine import MachineModel
from optimizer.ports import Backend, Call, Delta, Finished
from tests.backends.contract import LONG, WedgeContract, call, finish

TINY, QWEN, DEEP = (STRATEGY_CATALOGUE.models[name] for name in ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"))
SPEED = 100.0


class TestSimulatedContract(WedgeContract):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[SimulatedBackend]:
        backend = SimulatedBackend(speed=SPEED, probe_timeout_s=0.2)
        await backend.start()
        yield backend
        await backend.close()

    @pytest.fixture
    def spec(self) -> ModelSpec:
        return TINY

    async def wedge(self, backend: Backend) -> None:
        assert isinstance(backend, SimulatedBackend)
        backend.wedge()


@pytest.fixture
async def backend() -> AsyncIterator[SimulatedBackend]:
    backend = SimulatedBackend(speed=SPEED, probe_timeout_s=0.1)
    await backend.start()
    yield backend
    await backend.close()


async def text_of(backend: SimulatedBackend, one: Call) -> str:
    return "".join([item.text async for item in backend.generate(one) if isinstance(item, Delta)])


async def test_answers_are_labelled_and_repeat(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    one = call(TINY, "the same prompt", 0)
    first = await text_of(backend, one)
    assert first.startswith("[simulated answer from tinyllama: no model ran] ")
    assert first == await text_of(backend, one)
    assert first != await text_of(backend, call(TINY, "another prompt", 0))


async def test_every_token_of_the_answer_arrives(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    items = [item async for item in backend.generate(call(TINY, LONG, 40))]
    words = "".join(item.text for item in items if isinstance(item, Delta)).split()
    assert len(words) == 40
    assert isinstance(items[-1], Finished) and items[-1].output_tokens == 40


@pytest.mark.parametrize(
    "wanted",
    ["json", {"type": "object", "properties": {"n": {"type": "integer"}, "tags": {"type": "array"}}}],
)
async def test_a_format_gives_valid_json(backend: SimulatedBackend, wanted: object) -> None:
    await backend.load(TINY)
    answer = json.loads(await text_of(backend, replace(call(TINY, "as json", 0), format=wanted)))
    assert set(answer) == ({"simulated", "model", "answer"} if wanted == "json" else {"n", "tags"})


async def test_durations_are_the_machines_divided_by_speed(backend: SimulatedBackend) -> None:
    began_at = time.monotonic()
    report = await backend.load(DEEP)
    assert 6.0 / SPEED <= report.load_s <= time.monotonic() - began_at
    finished = await finish(backend.generate(call(DEEP, LONG, 40)))
    assert finished.decode_s == pytest.approx(40 / 40 / SPEED)
    assert finished.prefill_s == pytest.approx(finished.prompt_tokens / 500 / SPEED)


async def test_what_does_not_fit_fails_and_nothing_is_evicted(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    with pytest.raises(LoadFailed, match="needs 3200 MB and 2886 MB are free"):
        await backend.load(DEEP)
    assert [r.model for r in await backend.residents()] == ["tinyllama"]


async def test_a_generation_on_an_absent_model_fails(backend: SimulatedBackend) -> None:
    with pytest.raises(GenerationFailed, match="not loaded"):
        await finish(backend.generate(call(TINY, "hello", 4)))


async def test_a_death_breaks_what_runs_and_recover_starts_empty(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    items = backend.generate(call(TINY, LONG, 2000))
    assert isinstance(await anext(items), Delta)
    backend.die()
    with pytest.raises(GenerationFailed):
        while True:
            await anext(items)
    for attempt in (backend.models(), backend.residents(), backend.load(TINY), backend.probe(None), backend.start()):
        with pytest.raises(BackendUnavailable):
            await attempt
    await backend.recover()
    assert await backend.residents() == []
    await backend.load(TINY)


async def test_a_wedged_backend_fails_its_runs_on_recovery(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    backend.wedge()
    stuck = asyncio.create_task(finish(backend.generate(call(TINY, "hello", 4))))
    assert [r.model for r in await backend.residents()] == ["tinyllama"]
    with pytest.raises(BackendUnavailable):
        await backend.probe("tinyllama")
    with pytest.raises(BackendUnavailable):
        await backend.probe("tinyllama")
    await backend.recover()
    with pytest.raises(GenerationFailed):
        await stuck


async def test_an_injected_load_failure_happens_once(backend: SimulatedBackend) -> None:
    backend.fail_next_load("out of memory")
    with pytest.raises(LoadFailed, match="out of memory"):
        await backend.load(TINY)
    await backend.load(TINY)


async def test_a_cancelled_load_can_be_taken_up_again(backend: SimulatedBackend) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await backend.load(DEEP)
    await backend.load(DEEP)
    assert [r.model for r in await backend.residents()] == [DEEP.name]


async def test_a_model_that_cannot_embed_says_so() -> None:
    specs = {"tinyllama": replace(TINY, embeds=False)}
    backend = SimulatedBackend(MachineModel(specs=specs), speed=SPEED)
    await backend.load(TINY)
    with pytest.raises(UnsupportedFeature):
        await backend.embed("tinyllama", ["x"], {})


async def test_texts_that_share_words_have_similar_vectors(backend: SimulatedBackend) -> None:
    await backend.load(TINY)
    embedded = await backend.embed("tinyllama", ["a red train stops", "a red train waits", "many ships sail"], {})
    a, b, c = embedded.vectors
    assert sum(x * y for x, y in zip(a, b, strict=True)) > 0.5 > sum(x * y for x, y in zip(a, c, strict=True))


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        SimulatedBackend(speed=0)
