"""The routes of Ollama's HTTP API over the scheduler's rules, plus /stats and /fault for tests.

Must not know: how a runner is found, or what an answer's JSON looks like (wire.py).
"""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from aiohttp import web

from optimizer.backends import simulated_text
from optimizer.core.request import Message
from optimizer.core.tiers import STRATEGY_CATALOGUE, ModelSpec
from optimizer.machine import Run
from optimizer.ports import Call
from tests.ollama_server import wire
from tests.ollama_server.scheduler import Busy, LoadError, Runner, Scheduler, Stats

VERSION = "0.33.0"


class OllamaServer:
    """Serves on 127.0.0.1. `async with` starts and stops it; `port` 0 picks a free one."""

    def __init__(
        self,
        *,
        port: int = 0,
        speed: float = 20.0,
        slots: int = 2,
        vram_mb: float = 3686.0,
        max_queue: int = 512,
        specs: Mapping[str, ModelSpec] | None = None,
    ) -> None:
        specs = STRATEGY_CATALOGUE.models if specs is None else specs
        self._specs = {wire.full(name): spec for name, spec in specs.items()}
        self._scheduler = Scheduler(self._specs, speed=speed, slots=slots, vram_mb=vram_mb, max_queue=max_queue)
        self._port = port
        self._faults = {"die_mid_stream": 0, "cut_mid_stream": 0, "busy": 0}
        self._app_runner: web.AppRunner | None = None
        self.bodies: list[tuple[str, Mapping[str, Any]]] = []  # (route, body) of the last 1000 model calls

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def stats(self) -> Stats:
        return self._scheduler.stats

    async def __aenter__(self) -> "OllamaServer":
        app = web.Application(client_max_size=64 * 2**20, middlewares=[_errors])
        app.add_routes(
            [
                web.get("/", _alive),
                web.get("/api/version", _version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.post("/api/show", self._show),
                web.post("/api/generate", self._generate),
                web.post("/api/chat", self._chat),
                web.post("/api/embed", self._embed),
                web.post("/api/embeddings", self._embeddings),
                web.get("/stats", self._stats),
                web.post("/stats/reset", self._reset),
                web.post("/fault", self._fault),
            ]
        )
        self._scheduler.start()
        self._app_runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._app_runner.setup()
        site = web.TCPSite(self._app_runner, "127.0.0.1", self._port, backlog=1024)
        await site.start()
        self._port = self._app_runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._app_runner:
            await self._app_runner.cleanup()
        await self._scheduler.close()

    def fault(
        self,
        *,
        wedge: bool | str | None = None,
        die_mid_stream: int | None = None,
        cut_mid_stream: int | None = None,
        busy: int | None = None,
        fail_load: int | None = None,
        slow_load: float | None = None,
        memory_lag_s: float | None = None,
    ) -> None:
        """Break it. Counts say how many of the next requests are hit.

        wedge: True or "runner" = the loaded models generate nothing until they are unloaded; "server" = nothing
        is generated, loaded or unloaded until False. die_mid_stream: an error line; cut_mid_stream: the
        connection drops; busy: 503; slow_load: loads take this many times longer until set back to 1;
        memory_lag_s: freed memory counts as taken for so many (real) seconds more.
        """
        scheduler = self._scheduler
        if wedge in (True, "runner"):
            for runner in scheduler.loaded.values():
                runner.working.clear()
        elif wedge == "server":
            scheduler.progress.clear()
        elif wedge is False:
            scheduler.progress.set()
            for runner in scheduler.loaded.values():
                runner.working.set()
        counts = {"die_mid_stream": die_mid_stream, "cut_mid_stream": cut_mid_stream, "busy": busy}
        self._faults.update({name: count for name, count in counts.items() if count is not None})
        scheduler.fail_loads = scheduler.fail_loads if fail_load is None else fail_load
        scheduler.slow_load = scheduler.slow_load if slow_load is None else slow_load
        scheduler.memory_lag_s = scheduler.memory_lag_s if memory_lag_s is None else memory_lag_s

    # --- about models ---------------------------------------------------------------------------

    async def _tags(self, _: web.Request) -> web.Response:
        return _json({"models": [self._about(name) for name in self._specs]})

    async def _ps(self, _: web.Request) -> web.Response:
        scheduler = self._scheduler
        ready = [r for r in scheduler.loaded.values() if r.ready]
        return _json({"models": [self._resident(runner) for runner in [*ready, *scheduler.leaving.values()]]})

    def _resident(self, runner: Runner) -> dict[str, Any]:
        size_mb = self._scheduler.sizes_mb[runner.model]
        about = self._about(runner.model)
        del about["modified_at"]
        return about | {
            "size": int(size_mb * 2**20),
            "size_vram": int(runner.vram_mb * 2**20),
            "expires_at": datetime.fromtimestamp(runner.expires_at, UTC).isoformat(),
            "context_length": runner.options["num_ctx"],
        }

    def _about(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "model": name,
            "modified_at": "2026-01-01T00:00:00Z",
            "size": int(self._specs[name].footprint_mb * 0.9 * 2**20),
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": wire.details(),
        }

    async def _show(self, request: web.Request) -> web.Response:
        body = await _body(request)
        spec = self._spec(body.get("model") or body.get("name"))
        able = {
            "completion": True,
            "tools": spec.supports_tools,
            "thinking": spec.supports_thinking,
            "vision": spec.supports_images,
            "embedding": spec.embeds,
        }
        return _json(
            {
                "license": "stub",
                "template": "{{ .Prompt }}",
                "details": wire.details(),
                "model_info": {"general.architecture": "stub", "stub.context_length": 8192},
                "capabilities": [name for name, has in able.items() if has],
                "modified_at": "2026-01-01T00:00:00Z",
            }
        )

    # --- generations ----------------------------------------------------------------------------

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        prompt = str(body.get("prompt") or "")
        return await self._answer(request, body, [{"role": "user", "content": prompt}] if prompt else [], chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        return await self._answer(request, body, body.get("messages") or [], chat=True)

    async def _answer(
        self, request: web.Request, body: Mapping[str, Any], messages: list[Any], *, chat: bool
    ) -> web.StreamResponse:
        began_at = time.monotonic()
        spec = self._spec(body.get("model"))
        self._keep(request, body)
        name = wire.full(str(body["model"]))
        keep_alive_s = wire.seconds(body.get("keep_alive"))
        if not messages and keep_alive_s == 0:
            self._scheduler.expire(name)
            return _json(wire.last(body, "unload", chat))
        self._refuse_what_it_cannot(spec, body, messages)
        if self._counted("busy"):
            raise Busy
        runs = self._scheduler.runner(name, wire.runner_options(body), keep_alive_s, only_load=not messages)
        async with runs as runner:
            if not messages:
                return _json(wire.last(body, "load", chat))
            loaded_at = time.monotonic()
            options = body.get("options") or {}
            turns = tuple(Message(str(m.get("role", "user")), str(m.get("content") or "")) for m in messages)
            call = Call(
                spec.name, turns, options, tuple(body.get("tools") or ()), body.get("format"), body.get("think")
            )
            asked = wire.Asked(body, spec, call, began_at, chat)
            async with self._scheduler.slot(runner):
                chunks = self._chunks(asked, runner, loaded_at)
                if asked.stream:
                    return await self._stream(request, chunks)
                return await self._whole(asked, chunks)

    async def _chunks(self, asked: wire.Asked, runner: Runner, loaded_at: float) -> AsyncIterator[dict[str, Any]]:
        """The answer's lines as objects; the last one has done: true."""
        tokens = wire.tokens(asked)
        limit = int(asked.call.options.get("num_predict") or -1)
        cut = 0 < limit < len(tokens)
        tokens = tokens[:limit] if cut else tokens
        prompt_tokens = simulated_text.prompt_tokens([turn.content for turn in asked.call.messages])
        if prompt_tokens > runner.options["num_ctx"]:
            prompt_tokens = runner.options["num_ctx"] // 2  # silently, as Ollama does
        tool_call = wire.tool_call(asked)
        thought = wire.thought(asked, len(tokens))
        tokens = tokens[len(tokens) - thought :] + tokens[: len(tokens) - thought]
        dies = self._counted("die_mid_stream")
        drops = not dies and self._counted("cut_mid_stream")
        sent = 0
        run: Run | None = None
        async with aclosing(self._scheduler.run(runner, prompt_tokens, len(tokens))) as moments:
            async for run in moments:
                out = run.tokens_out
                if sent < min(out, thought):
                    end = min(out, thought)
                    yield wire.line(asked, thinking="".join(tokens[sent:end]))
                    sent = end
                if sent < out:  # one line for what came since the last look
                    yield wire.line(asked, text="".join(tokens[sent:out]))
                    sent = out
                if dies:
                    raise wire.ApiError(500, "llama runner process no longer running: 2")
                if drops:
                    raise ConnectionResetError
        if run is None or run.prefilled_at is None or run.finished_at is None:
            raise AssertionError("the run did not finish")
        if tool_call:
            yield wire.line(asked, tool_calls=[tool_call])
        now = time.monotonic()
        self.stats.answered[runner.model] += 1
        yield wire.last(asked.body, "length" if cut else "stop", asked.chat) | {
            "total_duration": wire.ns(now - asked.began_at),
            "load_duration": wire.ns(loaded_at - asked.began_at),
            "prompt_eval_count": prompt_tokens,
            "prompt_eval_duration": wire.ns(run.prefilled_at - run.started_at),
            "eval_count": len(tokens),
            "eval_duration": wire.ns(run.finished_at - run.prefilled_at),
        }

    async def _stream(self, request: web.Request, chunks: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with aclosing(chunks):  # type: ignore[type-var]
            try:
                async for chunk in chunks:
                    await response.write(json.dumps(chunk).encode() + b"\n")
            except wire.ApiError as error:
                await response.write(json.dumps({"error": error.message}).encode() + b"\n")
            except ConnectionResetError:
                if request.transport:
                    request.transport.abort()
                raise
        await response.write_eof()
        return response

    async def _whole(self, asked: wire.Asked, chunks: AsyncIterator[dict[str, Any]]) -> web.Response:
        async with aclosing(chunks):  # type: ignore[type-var]
            parts = [chunk async for chunk in chunks]
        last = parts.pop()
        if not asked.chat:
            whole = {"response": "".join(part["response"] for part in parts)}
            return _json(last | whole)
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        for part in parts:
            for key, value in part["message"].items():
                if key != "role":
                    message[key] = message.get(key, type(value)()) + value
        return _json(last | {"message": message})

    def _refuse_what_it_cannot(self, spec: ModelSpec, body: Mapping[str, Any], messages: list[Any]) -> None:
        name = body["model"]
        if body.get("tools") and not spec.supports_tools:
            raise wire.ApiError(400, f"registry.ollama.ai/library/{wire.full(name)} does not support tools")
        if body.get("think") and not spec.supports_thinking:
            raise wire.ApiError(400, f'"{name}" does not support thinking')
        for message in messages:
            for one in message.get("tool_calls") or ():
                if not isinstance(one.get("function", {}).get("arguments"), dict):
                    raise wire.ApiError(400, "json: cannot unmarshal string into .arguments of type object")

    # --- embeddings -----------------------------------------------------------------------------

    async def _embed(self, request: web.Request) -> web.Response:
        body = await _body(request)
        began_at = time.monotonic()
        given = body.get("input", [])
        texts = [given] if isinstance(given, str) else [str(text) for text in given]
        vectors, tokens, load_s = await self._vectors(request, body, texts)
        return _json(
            {
                "model": body["model"],
                "embeddings": vectors,
                "total_duration": wire.ns(time.monotonic() - began_at),
                "load_duration": wire.ns(load_s),
                "prompt_eval_count": tokens,
            }
        )

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await _body(request)
        vectors, _, _ = await self._vectors(request, body, [str(body.get("prompt") or "")])
        return _json({"embedding": vectors[0]})

    async def _vectors(
        self, request: web.Request, body: Mapping[str, Any], texts: list[str]
    ) -> tuple[list[Any], int, float]:
        began_at = time.monotonic()
        spec = self._spec(body.get("model"))
        self._keep(request, body)
        if not spec.embeds:
            raise wire.ApiError(501, "this model does not support embeddings")
        if self._counted("busy"):
            raise Busy
        name = wire.full(str(body["model"]))
        tokens = simulated_text.prompt_tokens(texts)
        scheduler = self._scheduler
        async with scheduler.runner(name, wire.runner_options(body), wire.seconds(body.get("keep_alive"))) as runner:
            load_s = time.monotonic() - began_at
            if texts:
                async with scheduler.slot(runner), aclosing(scheduler.run(runner, tokens, 0)) as moments:
                    async for _ in moments:
                        pass
            self.stats.answered[name] += 1
        return [simulated_text.vector(text) for text in texts], tokens, load_s

    # --- for tests ------------------------------------------------------------------------------

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(self.stats.as_dict())

    async def _reset(self, _: web.Request) -> web.Response:
        inside = self.stats.inside
        self._scheduler.stats = Stats(inside=inside, max_inside=inside)
        return _json({})

    async def _fault(self, request: web.Request) -> web.Response:
        try:
            self.fault(**await _body(request))
        except TypeError as error:
            raise wire.ApiError(400, str(error)) from None
        return _json({})

    # --- inside ---------------------------------------------------------------------------------

    def _spec(self, name: Any) -> ModelSpec:
        if not isinstance(name, str) or not name:
            raise wire.ApiError(400, "model is required")
        if wire.full(name) not in self._specs:
            raise wire.ApiError(404, f"model '{name}' not found")
        return self._specs[wire.full(name)]

    def _counted(self, fault: str) -> bool:
        if self._faults[fault] <= 0:
            return False
        self._faults[fault] -= 1
        return True

    def _keep(self, request: web.Request, body: Mapping[str, Any]) -> None:
        self.bodies.append((request.path, body))
        del self.bodies[:-1000]


@web.middleware
async def _errors(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except wire.ApiError as error:
        return _json({"error": error.message}, error.status)
    except Busy:
        return _json({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503)
    except LoadError as error:
        return _json({"error": str(error)}, 500)


async def _alive(_: web.Request) -> web.Response:
    return web.Response(text="Ollama is running")


async def _version(_: web.Request) -> web.Response:
    return _json({"version": VERSION})


async def _body(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw:
        raise wire.ApiError(400, "missing request body")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise wire.ApiError(400, str(error)) from None
    if not isinstance(body, dict):
        raise wire.ApiError(400, "json: cannot unmarshal into Go value of type api.Request")
    return body


def _json(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)
