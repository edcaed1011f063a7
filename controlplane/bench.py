"""Measures the product from outside, each figure beside a bare one taken in the same run: door, engine, start, memory.

Rule: it starts real processes (`manage.py up`, a bare ASGI "hello" on the same Daphne, a bare embedded engine), talks
to them over sockets, and computes ratios; the absolute figures are this machine's, on this day.
Must not know: how anything it measures works inside.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from controlplane.data_dir import PROJECT_ROOT
from optimizer.backends.llamacpp import LlamaCppBackend
from optimizer.backends.llamacpp_models import EMBEDDED_MODELS
from optimizer.core.errors import BackendUnavailable
from optimizer.core.request import Message
from optimizer.ports import Call, Finished

START_S = 120.0
ANSWER_TOKENS = 96
QUESTIONS = ("Describe a harbour at night.", "Explain how bread is made.", "Tell the story of a lost key.")
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A server of ours in its own process: `url` answers from the moment it is made; `stop` ends it."""

    def __init__(self, *arguments: str, ready: str, data_dir: Path | None = None) -> None:
        self.began = time.monotonic()
        self.port = _free_port()
        extra = ["--data-dir", str(data_dir)] if data_dir else []
        self.process = subprocess.Popen(
            [sys.executable, *arguments, "--port", str(self.port), *extra],
            cwd=PROJECT_ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = self.began + START_S
        while not self._ready(ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BackendUnavailable(f"{' '.join(arguments)} did not come up; run it by hand to see why")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - self.began

    def _ready(self, path: str) -> bool:
        try:
            return asyncio.run(_once(self.port, path)) == 200
        except OSError:
            return False

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far, user and system, without its children."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of the process and of all processes below it."""
        own, below = _resident_mb(self.process.pid), [_resident_mb(pid) for pid in _descendants(self.process.pid)]
        return {"server_mb": round(own), "models_mb": round(sum(below)), "all_mb": round(own + sum(below))}

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def running(*arguments: str, ready: str, data_dir: Path | None = None) -> Iterator[Process]:
    process = Process(*arguments, ready=ready, data_dir=data_dir)
    try:
        yield process
    finally:
        process.stop()


def key(data_dir: Path) -> str:
    """A new key of an agent made for this."""
    command = [sys.executable, "manage.py", "agentkey", "bench", "--create", "--data-dir", str(data_dir)]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout.strip()


# --- the door ------------------------------------------------------------------------------------------------------


def door(data_dir: Path, seconds: float) -> dict[str, Any]:
    """Requests/s, CPU ms a request and median ms at 1 and 64 connections: bare hello, cache hit, simulated answer."""
    figures: dict[str, Any] = {}
    with running("-m", "controlplane.bench", ready="/") as hello:
        figures["hello"] = _at_1_and_64(hello, lambda _: _request("GET", "/"), seconds)
    options = ("manage.py", "up", "--backend", "simulated", "--speed", "1000000")
    with running(*options, ready="/healthz", data_dir=data_dir) as up:
        token = key(data_dir)
        time.sleep(1.0)  # a key made elsewhere is taken up within half a second
        hit = _chat(
            token, "Say in 5 words what a port number is.", 400
        )  # it ends by itself: only whole answers are kept
        asyncio.run(_load(up.port, lambda _: hit, 1, 0.2))
        if asyncio.run(_cache_of(up.port, hit)) != "exact":
            raise BackendUnavailable("a repeated request was not answered from the cache: nothing to measure")
        figures["cache_hit"] = _at_1_and_64(up, lambda _: hit, seconds)
        fresh = ("no-cache", "no-store")
        figures["simulated"] = _at_1_and_64(
            up, lambda n: _chat(token, f"Name planet number {n}.", 8, cache_control=fresh), seconds
        )
    for name in ("cache_hit", "simulated"):
        for connections in ("1", "64"):
            mine, bare = figures[name][connections], figures["hello"][connections]
            mine["rate_ratio"] = round(mine["per_s"] / bare["per_s"], 2)
            mine["cpu_ratio"] = round(mine["cpu_ms"] / bare["cpu_ms"], 2)
    return figures


def _at_1_and_64(process: Process, request: Callable[[int], bytes], seconds: float) -> dict[str, Any]:
    return {str(connections): _measured(process, request, connections, seconds) for connections in (1, 64)}


def _measured(process: Process, request: Callable[[int], bytes], connections: int, seconds: float) -> dict[str, float]:
    cpu_s, began = process.cpu_s(), time.monotonic()
    times = asyncio.run(_load(process.port, request, connections, seconds))
    took_s, cpu_s = time.monotonic() - began, process.cpu_s() - cpu_s
    return {
        "per_s": round(len(times) / took_s, 1),
        "cpu_ms": round(1000 * cpu_s / len(times), 3),
        "p50_ms": round(1000 * median(times), 2),
    }


async def _load(port: int, request: Callable[[int], bytes], connections: int, seconds: float) -> list[float]:
    """Response times; every connection sends its next request when it has its answer. Any answer but 200 raises."""
    ends = time.monotonic() + seconds
    times: list[float] = []
    number = iter(range(1_000_000_000))

    async def one() -> None:
        async with _connection(port) as (reader, writer):
            while time.monotonic() < ends:
                began = time.monotonic()
                writer.write(request(next(number)))
                status, _ = await _answer(reader)
                if status != 200:
                    raise BackendUnavailable(f"the server answered {status}")
                times.append(time.monotonic() - began)

    await asyncio.gather(*(one() for _ in range(connections)))
    return times


# --- the engine ------------------------------------------------------------------------------------------------------


def engine(data_dir: Path, models_dir: Path, rounds: int) -> dict[str, Any]:
    """Tokens/s over HTTP against the bare engine, both in memory and asked the same in turns; start-up; memory."""
    options = ("manage.py", "up", "--backend", "llamacpp", "--models-dir", str(models_dir))
    with running(*options, ready="/livez", data_dir=data_dir) as up:
        cold = _first_answer(up, key(data_dir))
    with running(*options, ready="/livez", data_dir=data_dir) as up:
        token = key(data_dir)
        warm = _first_answer(up, token)
        speeds = asyncio.run(_turns(up.port, token, models_dir, rounds))
        for spec in EMBEDDED_MODELS:
            asyncio.run(_ask(up.port, token, spec.name, "Say yes.", 4))
        memory = up.memory_mb()
    return {"start": {"cold": cold, "warm": warm}, "speed": speeds, "memory": memory}


def _first_answer(up: Process, token: str) -> dict[str, float]:
    while True:  # the key is younger than the server
        try:
            asyncio.run(_ask(up.port, token, "default", "Say yes.", 4))
        except BackendUnavailable:
            time.sleep(0.05)
        else:
            break
    return {"port_open_s": round(up.ready_s, 2), "first_answer_s": round(time.monotonic() - up.began, 2)}


async def _turns(port: int, token: str, models_dir: Path, rounds: int) -> dict[str, Any]:
    spec = EMBEDDED_MODELS[0]
    backend = LlamaCppBackend(models_dir)
    await backend.start()
    figures: dict[str, Any] = {"model": spec.name, "answer_tokens": ANSWER_TOKENS, "rounds": rounds}
    try:
        await backend.load(spec)
        for streams in (1, 2):
            bare: list[float] = []
            through: list[float] = []
            for turn in range(rounds):
                asked = [f"{QUESTIONS[(turn + n) % len(QUESTIONS)]} ({streams}.{turn}.{n})" for n in range(streams)]
                for mine in (turn % 2 == 1, turn % 2 == 0):  # neither is always the first
                    if mine:
                        answers = [_ask(port, token, spec.name, text, ANSWER_TOKENS) for text in asked]
                    else:
                        answers = [_bare(backend, spec.name, text, slot) for slot, text in enumerate(asked)]
                    (through if mine else bare).append(await _speed(answers))
            figures[f"{streams}_streams"] = {
                "bare_tokens_per_s": round(median(bare), 1),
                "through_tokens_per_s": round(median(through), 1),
                "ratio": round(median(t / b for t, b in zip(through, bare, strict=True)), 3),
            }
    finally:
        await backend.close()
    return figures


async def _speed(answers: Sequence[Any]) -> float:
    began = time.monotonic()
    tokens = sum(await asyncio.gather(*answers))
    return tokens / (time.monotonic() - began)


def _sampling(tokens: int) -> dict[str, Any]:
    return {"temperature": 0, "top_p": 0.9, "repeat_penalty": 1.1, "num_predict": tokens}


async def _bare(backend: LlamaCppBackend, model: str, text: str, slot: int) -> int:
    call = Call(model, (Message("user", text),), _sampling(ANSWER_TOKENS), slot=slot)
    last = [item async for item in backend.generate(call)][-1]
    assert isinstance(last, Finished)
    return last.output_tokens


async def _ask(port: int, token: str, model: str, text: str, tokens: int) -> int:
    """Tokens of a streamed answer over HTTP."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "options": _sampling(tokens)}
    async with _connection(port) as (reader, writer):
        writer.write(_request("POST", "/api/chat", json.dumps(body).encode(), token, ("no-cache", "no-store")))
        status, answer = await _answer(reader)
    if status != 200:
        raise BackendUnavailable(f"the server answered {status}")
    return int(json.loads(answer.splitlines()[-1])["eval_count"])


# --- HTTP, as little as is needed to measure it -----------------------------------------------------------------------


def _chat(token: str, text: str, tokens: int, cache_control: Sequence[str] = ()) -> bytes:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "seed": 1}
    return _request("POST", "/v1/chat/completions", json.dumps(body).encode(), token, cache_control)


def _request(method: str, path: str, body: bytes = b"", token: str = "", cache_control: Sequence[str] = ()) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}"] if body else []
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Cache-Control: {', '.join(cache_control)}"] if cache_control else []
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return status, b"".join(parts)
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return status, await reader.readexactly(length)


async def _cache_of(port: int, request: bytes) -> str:
    async with _connection(port) as (reader, writer):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    return head.split("x-narrowgauge-cache:", 1)[-1].split("\r\n", 1)[0].strip()


async def _once(port: int, path: str) -> int:
    async with _connection(port) as (reader, writer):
        writer.write(_request("GET", path))
        return (await _answer(reader))[0]


@asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def _hello() -> None:
    """`python -m controlplane.bench --port N`: the least an ASGI application can do, on Daphne."""
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    port = int(sys.argv[sys.argv.index("--port") + 1])
    Server(application, endpoints=build_endpoint_description_strings(host="127.0.0.1", port=port), verbosity=0).run()


if __name__ == "__main__":
    _hello()
