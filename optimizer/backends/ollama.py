"""The Ollama backend: a real Ollama over HTTP, owned as DESIGN.md "Owning Ollama" says.

Rule: explicit loads and evictions only; every call, embeddings and probes too, carries the model's ONE pinned
runner profile and a keep_alive, so that Ollama never reloads or expires a model by itself. What Ollama has
measured (memory, durations) is reported, not guessed.
Must not know: queues or policies; how many calls are in flight is the runner's business.

It speaks through httpx and not through the `ollama` package: that package rewrites tool schemas (unknown JSON
schema keywords are lost) and opens a client's image string as a file if one of that name exists.
"""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import httpx

from optimizer.backends import ollama_wire as wire
from optimizer.core.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    GenerationFailed,
    LoadFailed,
    ModelFileMissing,
    UnsupportedFeature,
)
from optimizer.core.events import Resident
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Call, Delta, Embedded, Finished, LoadReport, ModelInfo

DEFAULT_URL = "http://127.0.0.1:11434"
_FOREVER = -1  # keep_alive: until we evict it
_CONTROL_TIMEOUT_S = 10.0  # of calls that only look something up
_POLL_S = 0.05
_DRIVER_LAG_S = 1.5  # "typical convergence is 0.5-1.5s": Ollama's waitForVRAMRecovery


class OllamaBackend:
    """A `Backend` over Ollama's HTTP API.

    Timeouts are seconds: `connect` to reach it, `stall` between two bytes of an answer (None = wait for ever; a
    stream has no limit in all), `load`, `evict`, and `probe` for one token. `profile` is pinned beside num_ctx
    in every model's runner options. `aside` names models that others use on this server (the embedder's): they are
    neither offered nor counted, loaded, probed or evicted. Raises ConfigurationError for an impossible `url`.
    """

    name = "ollama"
    simulated = False

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        profile: Mapping[str, Any] | None = None,
        connect_timeout_s: float = 3.0,
        stall_timeout_s: float | None = 300.0,
        load_timeout_s: float = 300.0,
        evict_timeout_s: float = 60.0,
        probe_timeout_s: float = 5.0,
        aside: Collection[str] = (),
    ) -> None:
        self.url = _checked(url)
        self._pinned = {"num_batch": 512} if profile is None else dict(profile)
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._load_timeout_s = load_timeout_s
        self._evict_timeout_s = evict_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._aside = frozenset(map(wire.short_name, aside))
        self._client: httpx.AsyncClient | None = None
        self._profiles: dict[str, dict[str, Any]] = {}  # short name -> runner options
        self._names: dict[str, str] = {}  # short name -> the name the catalogue uses
        self._shown: dict[str, Mapping[str, Any]] = {}  # digest -> /api/show
        self._evicted_at = float("-inf")
        self._settle_s = 0.0  # pause between an eviction and a load; learned, see `load`
        self._lag_checked = False

    async def start(self) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self.url,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                verify=self.url.startswith("https:"),  # plain HTTP needs no certificates: saves reading them
                trust_env=not _is_local(self.url),  # an environment's proxy does not know this machine
            )
        try:
            await self._look_up("GET", "/api/version")
        except BackendUnavailable as error:
            raise BackendUnavailable(
                f"{error}: start it with `ollama serve`, or name another with --ollama-url"
            ) from None

    async def models(self) -> Sequence[ModelInfo]:
        tags = self._ours((await self._look_up("GET", "/api/tags")).get("models") or [])
        shown = await asyncio.gather(*(self._show(tag) for tag in tags))
        return [wire.model_info(tag, one, self._called(tag["name"])) for tag, one in zip(tags, shown, strict=True)]

    async def residents(self) -> Sequence[Resident]:
        rows = await self._resident_rows()
        for row in rows:  # loaded before our time: keep the context it runs with rather than reload it
            profile = {"num_ctx": row["context_length"], **self._pinned} if row.get("context_length") else self._pinned
            self._profiles.setdefault(wire.short_name(row["name"]), dict(profile))
        return [wire.resident(row, self._called(row["name"])) for row in rows]

    async def load(self, spec: ModelSpec) -> LoadReport:
        """An empty prompt under the pinned profile. Ollama names no duration for it: the wall time counts.

        A GPU's driver may count an evicted model's memory for a second longer than /api/ps lists it. A load in
        that second spills to the CPU or pushes out what it could stand beside. The first time one does, it is
        tried once more after a pause; if that helped, every later load waits out the pause.
        """
        short = wire.short_name(spec.name)
        self._profiles[short] = {"num_ctx": spec.context_window, **self._pinned}
        self._names[short] = spec.name
        await asyncio.sleep(max(0.0, self._evicted_at + self._settle_s - time.monotonic()))
        soon = time.monotonic() - self._evicted_at < _DRIVER_LAG_S
        before = {resident.model for resident in await self.residents()}
        report, after = await self._load_now(spec)
        if soon and not before <= after:
            self._settle_s = _DRIVER_LAG_S
        elif soon and report.vram_mb < report.footprint_mb and not self._lag_checked:
            self._lag_checked = True
            await self.evict(spec.name)
            await asyncio.sleep(_DRIVER_LAG_S)
            again, _ = await self._load_now(spec)
            self._settle_s = _DRIVER_LAG_S if again.vram_mb > report.vram_mb else 0.0
            report = again
        return report

    async def _load_now(self, spec: ModelSpec) -> tuple[LoadReport, set[str]]:
        """The measured load, and which models are resident after it."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(self._load_timeout_s):
                try:
                    answer = await self._ask("/api/generate", self._body(spec.name), spec.name, LoadFailed)
                except UnsupportedFeature:  # a model that only embeds
                    answer = await self._ask("/api/embed", self._body(spec.name, input=[]), spec.name, LoadFailed)
        except TimeoutError:
            raise LoadFailed(f"Ollama did not load {spec.name} in {self._load_timeout_s:g} s") from None
        load_s = wire.seconds(answer.get("load_duration")) or time.monotonic() - began_at
        residents = {resident.model: resident for resident in await self.residents()}
        if spec.name not in residents:
            raise LoadFailed(f"Ollama loaded {spec.name} and does not list it as loaded")
        mine = residents[spec.name]
        return LoadReport(mine.footprint_mb, mine.vram_mb, load_s), set(residents)

    async def evict(self, model: str) -> None:
        """Ollama answers before the memory is free, so /api/ps is polled until the model is gone."""
        try:
            async with asyncio.timeout(self._evict_timeout_s):
                if not await self._is_resident(model):
                    return
                with contextlib.suppress(ModelFileMissing):
                    await self._ask("/api/generate", {"model": model, "keep_alive": 0}, model, BackendUnavailable)
                while await self._is_resident(model):  # noqa: ASYNC110 - another process: nothing to wait on
                    await asyncio.sleep(_POLL_S)
                self._evicted_at = time.monotonic()
        except TimeoutError:
            raise BackendUnavailable(f"Ollama did not evict {model} in {self._evict_timeout_s:g} s") from None

    async def generate(self, call: Call) -> AsyncGenerator[Delta | Finished, None]:
        """Closing it closes the connection; Ollama then frees the slot."""
        route, body = wire.call_body(call, self._profile(call.model), _FOREVER)
        finished: Finished | None = None
        try:
            async with self._open("POST", route, body, self._stall_timeout_s) as response:
                if response.status_code != 200:
                    raise wire.failure(response.status_code, await response.aread(), call.model, GenerationFailed)
                async with contextlib.aclosing(_lines(response)) as reads:
                    async for lines in reads:
                        for item in wire.items(lines):
                            if isinstance(item, Finished):
                                finished = item  # said at the stream's end: until then the request is inside
                            else:
                                yield item
        except (httpx.HTTPError, ValueError) as error:
            if finished is None:
                silent = isinstance(error, httpx.ReadTimeout)
                how = f"was silent for {self._stall_timeout_s:g} s" if silent else f"broke off: {_told(error)}"
                raise GenerationFailed(f"the stream from Ollama {how}") from None
        if finished is None:
            raise GenerationFailed("the stream from Ollama ended before the answer was done")
        yield finished

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any]) -> Embedded:
        body = self._body(model, input=list(inputs))
        body["options"] = {**wire.sampling(options), **body["options"]}
        return wire.embedded(await self._ask("/api/embed", body, model, GenerationFailed, self._stall_timeout_s))

    async def probe(self, model: str | None) -> None:
        """One real token. It stands in line with the model's other calls: probe when a slot is free."""
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                if model is None or not await self._is_resident(model):
                    await self._look_up("GET", "/api/version")
                    return
                body = self._body(model, prompt="1", raw=True)
                body["options"] = {"num_predict": 1, **body["options"]}
                try:
                    await self._ask("/api/generate", body, model, BackendUnavailable)
                except UnsupportedFeature:
                    await self._ask("/api/embed", self._body(model, input=["1"]), model, BackendUnavailable)
        except TimeoutError:
            raise BackendUnavailable(f"Ollama gave no token within {self._probe_timeout_s:g} s") from None

    async def recover(self) -> None:
        """Unload the loaded models that fail a probe: a fresh load starts a fresh runner.

        Their running calls must have been closed. Raises BackendUnavailable when Ollama itself is stuck.
        """
        for resident in await self.residents():
            try:
                await self.probe(resident.model)
            except BackendError:
                await self.evict(resident.model)

    async def close(self) -> None:
        """Drops the connections; models stay in Ollama's memory."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    # --- inside -------------------------------------------------------------------------------

    def _called(self, name: str) -> str:
        short = wire.short_name(name)
        return self._names.get(short, short)

    def _profile(self, model: str) -> dict[str, Any]:
        return self._profiles.get(wire.short_name(model), self._pinned)

    def _body(self, model: str, **more: Any) -> dict[str, Any]:
        return {"model": model, "stream": False, "keep_alive": _FOREVER, "options": self._profile(model), **more}

    async def _resident_rows(self) -> list[Mapping[str, Any]]:
        return self._ours((await self._look_up("GET", "/api/ps")).get("models") or [])

    def _ours(self, rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [row for row in rows if wire.short_name(row["name"]) not in self._aside]

    async def _is_resident(self, model: str) -> bool:
        short = wire.short_name(model)
        return any(wire.short_name(row["name"]) == short for row in await self._resident_rows())

    async def _show(self, tag: Mapping[str, Any]) -> Mapping[str, Any]:
        """/api/show, once per digest; empty when Ollama cannot say (a broken model must not hide the others)."""
        digest = str(tag.get("digest") or tag["name"])
        if digest not in self._shown:
            try:
                self._shown[digest] = await self._look_up("POST", "/api/show", {"model": tag["name"]})
            except BackendError:
                return {}
        return self._shown[digest]

    async def _look_up(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._exchange(method, route, body, "", BackendUnavailable, _CONTROL_TIMEOUT_S)

    async def _ask(
        self,
        route: str,
        body: Mapping[str, Any],
        model: str,
        kind: type[BackendError],
        silence_s: float | None = None,
    ) -> dict[str, Any]:
        """One whole answer. Without `silence_s` the caller limits its time."""
        return await self._exchange("POST", route, body, model, kind, silence_s)

    async def _exchange(
        self,
        method: str,
        route: str,
        body: Mapping[str, Any] | None,
        model: str,
        kind: type[BackendError],
        silence_s: float | None,
    ) -> dict[str, Any]:
        try:
            async with self._open(method, route, body, silence_s) as response:
                content = await response.aread()
        except httpx.ReadTimeout:
            raise BackendUnavailable(f"Ollama at {self.url} did not answer {route} within {silence_s:g} s") from None
        except httpx.HTTPError as error:
            raise kind(f"Ollama broke off {route}: {_told(error)}") from None
        if response.status_code != 200:
            raise wire.failure(response.status_code, content, model, kind)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise BackendUnavailable(f"what answers at {self.url} is not Ollama")
        return answer

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, route: str, body: Mapping[str, Any] | None, silence_s: float | None
    ) -> AsyncIterator[httpx.Response]:
        """The response, headers read. Raises BackendUnavailable when Ollama cannot be reached."""
        if self._client is None:
            raise BackendUnavailable("the Ollama backend has not been started")
        timeout = httpx.Timeout(silence_s, connect=self._connect_timeout_s, pool=None)
        content = None if body is None else json.dumps(body).encode()
        request = self._client.build_request(method, route, content=content, timeout=timeout)
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise BackendUnavailable(f"no Ollama answers at {self.url} ({_told(error)})") from None
        try:
            yield response
        finally:
            await response.aclose()


async def _lines(response: httpx.Response) -> AsyncGenerator[list[dict[str, Any]], None]:
    """The JSON lines of each read that completed at least one. Raises ValueError on anything else."""
    rest = b""
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            *whole, rest = (rest + chunk).split(b"\n")
            if lines := [json.loads(line) for line in whole if line.strip()]:
                yield lines
    if rest.strip():
        yield [json.loads(rest)]


def _checked(url: str) -> str:
    """`url` with a scheme and no slash at its end. Raises ConfigurationError."""
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"'{url}' is not the address of an Ollama: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"'{url}' is not the address of an Ollama: http://HOST:PORT is expected")
    return url


def _is_local(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
