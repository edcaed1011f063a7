"""What every backend must do, whichever engine is behind it: subclass, give `backend` and `spec`, done.

Rule: nothing here knows an engine; only the port. Tests share nothing but the backend, so `backend` may live as
long as its event loop (a real engine is slow to start): every test brings the model in itself.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from optimizer.core.errors import BackendError, BackendUnavailable, ModelFileMissing, UnsupportedFeature
from optimizer.core.request import Message
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Backend, Call, Delta, Finished

LONG = "Write a long story about a train on a narrow track. It must have at least 3000 words."


class BackendContract:
    """Every backend passes these. `patience_s` bounds every wait: far above what the backend needs."""

    patience_s = 20.0

    @pytest.fixture
    def backend(self) -> Backend:
        """A started backend. Overridden (async fixtures may)."""
        raise NotImplementedError

    @pytest.fixture
    def spec(self) -> ModelSpec:
        """A model the backend has on disk."""
        raise NotImplementedError

    async def test_it_knows_its_models(self, backend: Backend, spec: ModelSpec) -> None:
        infos = {info.name: info for info in await backend.models()}
        assert spec.name in infos
        assert "completion" in infos[spec.name].capabilities

    async def test_a_load_is_measured_and_seen(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.evict(spec.name)
        report = await backend.load(spec)
        assert 0 < report.vram_mb <= report.footprint_mb
        assert report.load_s > 0
        resident = next(r for r in await backend.residents() if r.model == spec.name)
        assert (resident.footprint_mb, resident.vram_mb) == pytest.approx(
            (report.footprint_mb, report.vram_mb), rel=0.2
        )

    async def test_loading_a_loaded_model_is_no_error(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        await backend.load(spec)
        assert [r.model for r in await backend.residents()].count(spec.name) == 1

    async def test_an_evicted_model_is_gone_when_evict_returns(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        await backend.evict(spec.name)
        assert spec.name not in [r.model for r in await backend.residents()]

    async def test_evicting_an_absent_model_is_no_error(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.evict(spec.name)
        await backend.evict(spec.name)

    async def test_a_generation_is_deltas_then_one_finished(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        items = [item async for item in backend.generate(call(spec, "Say hello to the reader.", 24))]
        *deltas, finished = items
        assert deltas and all(isinstance(delta, Delta) for delta in deltas)
        assert isinstance(finished, Finished)
        assert "".join(delta.text + delta.thinking for delta in deltas if isinstance(delta, Delta)).strip()
        assert finished.prompt_tokens > 0 and 0 < finished.output_tokens <= 24
        assert min(finished.prefill_s, finished.decode_s, finished.load_s) >= 0

    async def test_a_generation_streams(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        async with contextlib.aclosing(backend.generate(call(spec, LONG, 2000))) as items:
            async with asyncio.timeout(self.patience_s):
                first, second = await anext(items), await anext(items)
        assert isinstance(first, Delta) and isinstance(second, Delta)

    async def test_num_predict_is_honoured(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        finished = await finish(backend.generate(call(spec, LONG, 5)))
        assert (finished.output_tokens, finished.done_reason) == (5, "length")

    async def test_two_run_at_once_on_one_model(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        async with running(backend, spec, self.patience_s), running(backend, spec, self.patience_s):
            pass

    async def test_closing_the_iterator_frees_the_slot(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        async with running(backend, spec, self.patience_s):
            for _ in range(3):
                async with running(backend, spec, self.patience_s):
                    pass
        finished = await finish(backend.generate(call(spec, LONG, 4)), self.patience_s)
        assert finished.output_tokens == 4

    async def test_cancelling_the_consumer_frees_the_slot(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        for _ in range(3):
            started = asyncio.Event()
            task = asyncio.create_task(consume(backend.generate(call(spec, LONG, 2000)), started))
            async with asyncio.timeout(self.patience_s):
                await started.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finished = await finish(backend.generate(call(spec, LONG, 4)), self.patience_s)
        assert finished.output_tokens == 4

    async def test_an_unknown_model_is_said_to_be_missing(self, backend: Backend, spec: ModelSpec) -> None:
        unknown = replace(spec, name="no-such-model")
        with pytest.raises(ModelFileMissing, match="no-such-model"):
            await backend.load(unknown)
        with pytest.raises(BackendError):
            await finish(backend.generate(call(unknown, "hello", 4)))

    async def test_it_embeds_or_says_that_it_cannot(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        try:
            embedded = await backend.embed(spec.name, ["a red train", "a blue ship", "a red train"], {})
        except UnsupportedFeature:
            return
        first, second, third = embedded.vectors
        assert len(first) == len(second) > 1
        assert first == pytest.approx(third, abs=1e-3) and first != pytest.approx(second, abs=1e-3)
        assert math.isfinite(sum(first)) and any(first)
        assert embedded.prompt_tokens > 0

    async def test_a_probe_passes_with_and_without_a_model(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.probe(None)
        await backend.load(spec)
        await backend.probe(spec.name)
        assert spec.name in [r.model for r in await backend.residents()]

    async def test_recovering_a_healthy_backend_leaves_it_able_to_work(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        await backend.recover()
        await self.works(backend, spec)

    async def test_a_closed_backend_can_be_started_again(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.close()
        await backend.start()
        await self.works(backend, spec)

    async def works(self, backend: Backend, spec: ModelSpec) -> None:
        """Load, one short answer, probe."""
        await backend.load(spec)
        assert (await finish(backend.generate(call(spec, LONG, 4)), self.patience_s)).output_tokens == 4
        await backend.probe(spec.name)


class WedgeContract(BackendContract):
    """For backends whose test can make them wedge: it answers, and generates nothing."""

    async def wedge(self, backend: Backend) -> None:
        """Break it. Overridden."""
        raise NotImplementedError

    async def test_a_probe_finds_a_wedge_and_recover_ends_it(self, backend: Backend, spec: ModelSpec) -> None:
        await backend.load(spec)
        await self.wedge(backend)
        with pytest.raises(BackendUnavailable):
            await backend.probe(spec.name)
        async with asyncio.timeout(self.patience_s):
            await backend.recover()
            await self.works(backend, spec)


def call(spec: ModelSpec, prompt: str, num_predict: int) -> Call:
    """A greedy one-message call."""
    options = {"num_predict": num_predict, "temperature": 0, "seed": 1}
    return Call(spec.name, (Message("user", prompt),), options)


@contextlib.asynccontextmanager
async def running(backend: Backend, spec: ModelSpec, patience_s: float) -> AsyncIterator[None]:
    """A long generation that has given its first delta; closed on leaving."""
    items = backend.generate(call(spec, LONG, 2000))
    try:
        async with asyncio.timeout(patience_s):
            assert isinstance(await anext(items), Delta)
        yield
    finally:
        async with asyncio.timeout(patience_s):
            await items.aclose()


async def consume(items: AsyncIterator[Delta | Finished], started: asyncio.Event) -> None:
    async for _ in items:
        started.set()


async def finish(items: AsyncIterator[Delta | Finished], patience_s: float = 60.0) -> Finished:
    """The Finished of a generation, which comes last and once."""
    async with asyncio.timeout(patience_s):
        everything = [item async for item in items]
    assert [isinstance(item, Finished) for item in everything].count(True) == 1
    last = everything[-1]
    assert isinstance(last, Finished)
    return last
