"""The embedded engine: real inference with llama.cpp, one child process per resident model.

Rule: a model in memory is a process, so eviction (or a crash) gives all its memory back to the system; what
is reported is measured on that process. It loads and evicts only when told to, and has two slots per model.
Must not know: queues, tiers' policies, where model files come from.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from optimizer import model_files
from optimizer.backends import llamacpp_wire as wire
from optimizer.backends.llamacpp_child import BATCH_TOKENS
from optimizer.backends.llamacpp_models import EMBEDDED_BY_NAME, EmbeddedModel
from optimizer.backends.llamacpp_process import Child
from optimizer.core.errors import (
    BackendUnavailable,
    GenerationFailed,
    LoadFailed,
    ModelFileMissing,
    NarrowgaugeError,
    UnsupportedFeature,
)
from optimizer.core.events import Resident
from optimizer.core.request import Message
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Call, Delta, Embedded, Finished, LoadReport, ModelInfo

_log = logging.getLogger(__name__)
_SLOTS = 2  # per child; the node's own limit of two over all models is the runner's to keep
_FREE_POLL_S = 0.02
_FREE_PATIENCE_S = 30.0  # a slot that a cancelled generation still holds after this is wedged


@dataclass(slots=True)
class _Loaded:
    """A resident model."""

    model: EmbeddedModel
    spec: ModelSpec
    child: Child
    busy: set[int] = field(default_factory=set)  # slots that a generation of ours runs on


class LlamaCppBackend:
    """A `Backend` whose models are the embedded catalogue's.

    `threads` per model: None takes half the cores, at least one: two models may run at once.
    """

    name = "llamacpp"
    simulated = False

    def __init__(self, models_dir: Path, *, threads: int | None = None, probe_timeout_s: float = 5.0) -> None:
        self._directory = models_dir
        self._threads = threads or max(1, (os.cpu_count() or 1) // 2)
        self._probe_timeout_s = probe_timeout_s
        self._loaded: dict[str, _Loaded] = {}
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one load or evict per model
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        if not await self.models():
            names = ", ".join(sorted({model.file.name for model in EMBEDDED_BY_NAME.values()}))
            raise ModelFileMissing(
                f"no model file of the embedded engine is in {self._directory} (it looks for {names}): "
                "run `manage.py pull`"
            )
        if self._client is None:
            self._client = httpx.AsyncClient(
                # No read timeout: the runner's stall check is the judge of that. No keep-alive: a connection
                # that the server closed meanwhile would look like a crash, and loopback connects cost nothing.
                timeout=httpx.Timeout(5.0, read=None, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                trust_env=False,  # no proxy between us and our own child
            )

    async def models(self) -> Sequence[ModelInfo]:
        return [
            _info(model, self._directory)
            for model in EMBEDDED_BY_NAME.values()
            if model_files.is_present(model.file, self._directory)
        ]

    async def residents(self) -> Sequence[Resident]:
        measured = [(name, await loaded.child.resident_mb()) for name, loaded in list(self._loaded.items())]
        return [Resident(name, footprint, footprint) for name, footprint in measured if footprint > 0]

    async def load(self, spec: ModelSpec) -> LoadReport:
        began_at = time.monotonic()
        self._require_client()
        async with self._changing[spec.name]:
            loaded = self._loaded.get(spec.name)
            if loaded is not None and not loaded.child.alive:
                await self._drop(spec.name)
                loaded = None
            if loaded is None:
                loaded = await self._start_child(spec)
                self._loaded[spec.name] = loaded
            footprint_mb = await loaded.child.resident_mb()
        if footprint_mb <= 0:
            raise LoadFailed(f"{spec.name} died right after its load: {loaded.child.last_words()}")
        return LoadReport(footprint_mb, footprint_mb, time.monotonic() - began_at)

    async def _start_child(self, spec: ModelSpec) -> _Loaded:
        model = EMBEDDED_BY_NAME.get(spec.name)
        if model is None:
            raise ModelFileMissing(
                f"the embedded engine has no model {spec.name}; it has {', '.join(EMBEDDED_BY_NAME)}"
            )
        path = self._directory / model.file.name
        if not model_files.is_present(model.file, self._directory):
            raise ModelFileMissing(f"{spec.name} needs the file {path}, which is not there: run `manage.py pull`")
        settings = {
            "model": spec.name,
            "path": str(path.resolve()),
            "context_window": spec.context_window,
            "slots": _SLOTS,
            "threads": self._threads,
            "chat_template": model.chat_template,
            "embeddings": spec.embeds,
        }
        try:
            child = await Child.start(settings)
        except LoadFailed as error:
            raise LoadFailed(f"{spec.name} could not be loaded: {error}") from error
        loaded = _Loaded(model, spec, child)
        try:
            await self._warm_up(loaded)
        except httpx.HTTPError as error:
            await child.stop()
            raise LoadFailed(f"{spec.name} does not generate: {child.last_words()}") from error
        except BaseException:  # a cancelled load leaves nothing behind
            await child.stop()
            raise
        return loaded

    async def _warm_up(self, loaded: _Loaded) -> None:
        """Make it generate and embed once: proves that it works, and takes the memory that work takes.

        Buffers for whole steps, constrained output and embeddings come with their first use; measured before
        that, a footprint was 40 to 60 MB too small. So each text is longer than one step.
        """
        two_steps = "one two three four " * (BATCH_TOKENS // 4 + 4)
        hello = Call(loaded.spec.name, (Message("user", two_steps),), {"num_predict": 2}, format="json")
        await self._post(loaded, *wire.request(hello, (), 0))
        if loaded.spec.embeds:
            await self._post(loaded, wire.EMBED_PATH, wire.encoded({"input": two_steps}))

    async def evict(self, model: str) -> None:
        async with self._changing[model]:
            await self._drop(model)

    async def _drop(self, model: str) -> None:
        loaded = self._loaded.pop(model, None)
        if loaded is not None:
            await asyncio.shield(loaded.child.stop())

    async def generate(self, call: Call) -> AsyncGenerator[Delta | Finished, None]:
        loaded = self._running(call.model)
        wire.check(call, loaded.spec)
        slot = _free_slot(loaded, call.slot)
        path, body = wire.request(call, loaded.model.stops, slot)
        reader = wire.Reader(strip_leading=loaded.model.strip_leading and not call.raw)
        if slot is not None:
            loaded.busy.add(slot)
        try:
            async with self._stream(loaded, path, body) as response:
                async for line in response.aiter_lines():
                    for item in reader.feed(line):
                        yield item
            if not reader.finished:
                raise GenerationFailed(f"{call.model} broke off: {await self._why(loaded)}")
        except httpx.HTTPError as error:
            raise GenerationFailed(f"{call.model} broke off: {await self._why(loaded)}") from error
        finally:
            try:
                if not reader.finished:
                    await self._until_free(loaded, slot)
            finally:
                loaded.busy.discard(-1 if slot is None else slot)

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any]) -> Embedded:
        loaded = self._running(model)
        if not loaded.spec.embeds:
            raise UnsupportedFeature(f"{model} does not support embeddings", param="model")
        vectors: list[tuple[float, ...]] = []
        prompt_tokens = 0
        try:
            for text in inputs:  # one by one: together they would take both slots
                answer = await self._post(loaded, wire.EMBED_PATH, wire.encoded({"input": text}))
                vectors.append(tuple(answer["data"][0]["embedding"]))
                prompt_tokens += answer["usage"]["prompt_tokens"]
        except httpx.HTTPError as error:
            raise GenerationFailed(f"{model} broke off: {await self._why(loaded)}") from error
        return Embedded(tuple(vectors), prompt_tokens)

    async def probe(self, model: str | None) -> None:
        self._require_client()
        if model is None:
            return  # without a child there is nothing that could be wedged
        loaded = self._loaded.get(model)
        if loaded is None or not loaded.child.alive:
            raise BackendUnavailable(f"{model} is not running{f': {loaded.child.last_words()}' if loaded else ''}")
        slot = _free_slot(loaded, _SLOTS - 1)  # the last slot: what the first one holds stays warm
        token = Call(model, (Message("user", "Hello"),), {"num_predict": 1}, raw=True)
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                if slot is None:
                    await self._processing(loaded)  # answered between two steps: the loop that generates turns
                else:
                    await self._post(loaded, *wire.request(token, (), slot))
        except (TimeoutError, httpx.HTTPError, NarrowgaugeError) as error:
            raise BackendUnavailable(f"{model} generates nothing: {await self._why(loaded)}") from error

    async def recover(self) -> None:
        """End every child that is dead or does not answer; what runs on it fails. The others stay."""
        for model in list(self._loaded):
            try:
                await self.probe(model)
            except BackendUnavailable as error:
                _log.warning("recovering: %s", error)
                await self.evict(model)

    async def close(self) -> None:
        for model in list(self._loaded):
            await self.evict(model)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _require_client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise BackendUnavailable("the embedded engine is not started")
        return self._client

    def _running(self, model: str) -> _Loaded:
        loaded = self._loaded.get(model)
        if loaded is None:
            raise GenerationFailed(f"{model} is not loaded")
        if not loaded.child.alive:
            raise GenerationFailed(f"{model} is gone: {loaded.child.last_words()}")
        return loaded

    @contextlib.asynccontextmanager
    async def _stream(self, loaded: _Loaded, path: str, body: bytes) -> AsyncGenerator[httpx.Response, None]:
        headers = {"Authorization": f"Bearer {loaded.child.api_key}", "Content-Type": "application/json"}
        url = loaded.child.url + path
        async with self._require_client().stream("POST", url, content=body, headers=headers) as response:
            if response.status_code != 200:
                raise wire.refusal(response.status_code, await response.aread())
            yield response

    async def _post(self, loaded: _Loaded, path: str, body: bytes) -> Any:
        async with self._stream(loaded, path, body) as response:
            content = await response.aread()
            return response.json() if path == wire.EMBED_PATH else content

    async def _until_free(self, loaded: _Loaded, slot: int | None) -> None:
        """Wait until the server has stopped; a slot that never gets free takes its child with it."""
        try:
            async with asyncio.timeout(_FREE_PATIENCE_S):
                while loaded.child.alive:
                    if slot not in await self._processing(loaded):
                        return
                    await asyncio.sleep(_FREE_POLL_S)
        except TimeoutError:
            _log.error("%s: slot %s does not get free; ending its process", loaded.spec.name, slot)
            await loaded.child.stop()
        except (httpx.HTTPError, BackendUnavailable):
            return  # it died, or we are closing: nothing holds the slot any more

    async def _processing(self, loaded: _Loaded) -> set[int]:
        """The slots on which the server works."""
        headers = {"Authorization": f"Bearer {loaded.child.api_key}"}
        answer = await self._require_client().get(f"{loaded.child.url}/slots", headers=headers)
        return {slot["id"] for slot in answer.raise_for_status().json() if slot["is_processing"]}

    async def _why(self, loaded: _Loaded) -> str:
        """The end of a child that just broke a connection; its exit is noticed a moment later."""
        with contextlib.suppress(TimeoutError):
            await loaded.child.wait(timeout_s=1.0)
        return loaded.child.last_words()


def _free_slot(loaded: _Loaded, wanted: int) -> int | None:
    """The wanted slot, so that its prefix is still warm, or another free one; None when all are taken."""
    order = sorted(range(_SLOTS), key=lambda slot: slot != wanted % _SLOTS)
    return next((slot for slot in order if slot not in loaded.busy), None)


def _info(model: EmbeddedModel, directory: Path) -> ModelInfo:
    changed_at = (directory / model.file.name).stat().st_mtime
    return ModelInfo(
        name=model.spec.name,
        size_mb=model.file.size_bytes / (1 << 20),
        digest=model.file.sha256,
        family=model.family,
        parameter_size=model.parameter_size,
        quantization=model.quantization,
        context_length=model.trained_context,
        capabilities=("completion", "embedding") if model.spec.embeds else ("completion",),
        modified_at=datetime.fromtimestamp(changed_at, UTC).isoformat(),
        template=model.chat_template,
        license=model.file.license,
    )
