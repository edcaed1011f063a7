"""The HTTP server of one process: Daphne in front of a `Front`, from the first check to a clean stop.

Rule: it refuses a taken port before anything else, starts the front once the port is open, and stops on SIGTERM and
Ctrl-C only after the front has ended every request.
Must not know: whether the front is an engine of this process or the link to one.
"""

import asyncio
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

# Daphne installs Twisted's asyncio reactor when it is imported; it must come before anything that uses one.
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import IntegrityError
from twisted.internet import reactor

from controlplane import data_dir
from controlplane.front import Front
from controlplane.wire.app import MAX_BODY_BYTES
from controlplane.wire.intake import bound_bodies
from optimizer.core.errors import BackendUnavailable, NarrowgaugeError

log = logging.getLogger("narrowgauge.serving")

ADMIN = "admin"
DAY_S = 86_400
FAREWELL_S = 0.2  # for the last answers to leave the sockets


class Serving:
    """`run` serves until it is told to stop; raises what kept the front from starting."""

    def __init__(self, front: Front, host: str, port: int, password: str, say: Callable[[str], None]) -> None:
        """`password`: the first administrator's, to be shown; "" for none."""
        self._front = front
        self._host, self._port, self._password = host, port, password
        self._say = say
        self._failure: NarrowgaugeError | None = None
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def run(self) -> None:
        from controlplane import asgi  # after Daphne's reactor

        self._server = Server(
            asgi.build(self._front),
            endpoints=build_endpoint_description_strings(host=self._host, port=self._port),
            http_timeout=None,  # a queued stream may take its time; callers bring their own limits
            websocket_timeout=DAY_S,
            verbosity=0,
            signal_handlers=False,  # ours end the requests before the sockets close
            server_name="narrowgauge",
            ready_callable=self._begin,
        )
        self._server.run()
        if self._failure is not None:
            raise self._failure
        self._say("Stopped.")

    def _begin(self) -> None:
        """Called once the port is open, on the loop that serves."""
        bound_bodies(self._server, MAX_BODY_BYTES)
        url = address(self._host, self._port)
        self._say(f"Narrowgauge serves on {url}")
        self._say(f"  OpenAI clients: {url}/v1   Ollama clients: {url}   dashboard: {url}/")
        if self._password:
            self._say(f"  First sign-in: {ADMIN} / {self._password}   (shown once; change it in the admin)")
        self._say(f"  A key for an agent: {_shown_python()} manage.py agentkey SLUG --data-dir {data_dir.path()}")
        loop = asyncio.get_event_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        self._tasks.append(loop.create_task(self._start()))

    def _stop_soon(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._say("Stopping: ending requests, writing records, releasing models.")
        self._tasks.append(asyncio.get_event_loop().create_task(self._stop()))

    async def _stop(self) -> None:
        try:
            await self._front.stop()
            await asyncio.sleep(FAREWELL_S)
        finally:
            reactor.stop()

    async def _start(self) -> None:
        try:
            await self._front.start()
        except NarrowgaugeError as error:
            self._failure = error
            reactor.stop()
        except BaseException:
            log.critical("the start failed", exc_info=True)
            reactor.stop()
            raise
        else:
            unready = _unready(self._front)
            self._say(f"Not ready yet: {unready}" if unready else "Ready: a model can be served.")


def _unready(front: Front) -> str:
    try:
        return front.engine.unready()
    except BackendUnavailable as error:
        return str(error)


def address(host: str, port: int) -> str:
    """Where people find it."""
    return f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"


def check_port(host: str, port: int) -> None:
    """Raises CommandError when the address cannot be listened on."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error}; choose another --port") from error


def first_password() -> str:
    """Make the first administrator; returns its one-time password, "" when there is one already."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(12)
    try:
        users.create_superuser(ADMIN, password=password)
    except IntegrityError:
        return ""  # another process of this installation was first, and has shown it
    return password


def _shown_python() -> str:
    """This interpreter as a person would type it here."""
    executable = Path(sys.executable)
    return str(executable.relative_to(Path.cwd())) if executable.is_relative_to(Path.cwd()) else str(executable)
