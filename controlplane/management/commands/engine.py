"""`manage.py engine`: runs the models for web processes elsewhere. One is active per node group, the others stand by.

Rule: only the holder of the lease drives the node. Whoever loses it ends its requests, lets go of the backend and
stands by again, in the same process; what a late copy of it still says is ignored by its epoch.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, connections
from redis.asyncio import Redis

from controlplane import data_dir, database, launch
from controlplane.link.connection import AWAY, Names, connect, end
from controlplane.link.lease import LOOK_EVERY_S, Lease
from controlplane.link.server import LinkServer
from controlplane.management.foreground import ForegroundCommand
from controlplane.node_lock import NodeLock
from controlplane.service import Service
from optimizer.embedding import default_embedder
from optimizer.ports import Embedder
from optimizer.tokens import LlamaTokenCounter

log = logging.getLogger("narrowgauge.engine")

DATABASE_AGAIN_S = 1.0  # pause before a start is tried again that the database refused


class Command(ForegroundCommand):
    help = "Run the models for `manage.py web` processes; a second one stands by and takes over."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        launch.add_arguments(parser)

    def serve(self, options: dict[str, Any]) -> None:
        if not settings.REDIS_URL:
            raise CommandError("engine needs REDIS_URL to hear web processes; `manage.py up` serves from one process")
        self._prepare(options)
        asyncio.run(self._run(options))
        self.say("Stopped.")

    def _prepare(self, options: dict[str, Any]) -> None:
        data_dir.confirm(options["data_dir"])
        # Shared with other engines (the lease decides between them), but not with an `up`.
        self._lock = NodeLock(data_dir.prepare(), "an engine of the scaled mode", shared=True)
        for step in database.bring_up_to_date():
            self.say(f"Set-up: {step}")
        self._embed: Embedder = launch.embedder(options)
        default_embedder()(["ready"])  # loaded now, so that a takeover need not wait for it
        LlamaTokenCounter()("ready")

    async def _run(self, options: dict[str, Any]) -> None:
        redis, names = connect(settings.REDIS_URL), Names(settings.NODE_GROUP)
        lease = Lease(redis, names, f"{socket.gethostname()}:{os.getpid()}")
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            while not stop.is_set():
                if await self._taken(lease, stop):
                    await self._serve(options, redis, names, lease, stop)
        finally:
            await redis.aclose()

    async def _taken(self, lease: Lease, stop: asyncio.Event) -> bool:
        """Wait for the lease; False when told to stop first."""
        said = ""
        while not stop.is_set():
            try:
                if await lease.take():
                    self.say(f"Active: epoch {lease.epoch}.")
                    return True
                why = f"Standing by: {await lease.holder() or 'another engine'} is the active one."
            except AWAY as error:
                why = f"Waiting for Redis: {error}"
            if why != said:
                self.say(why)
                said = why
            await asyncio.sleep(LOOK_EVERY_S)
        return False

    async def _serve(
        self, options: dict[str, Any], redis: Redis, names: Names, lease: Lease, stop: asyncio.Event
    ) -> None:
        """Be the active engine until told to stop, or until the lease is lost."""
        keeping = asyncio.create_task(lease.keep())
        stopping = asyncio.create_task(stop.wait())
        serving: asyncio.Task[None] | None = None
        service: Service | None = None
        try:
            starting = asyncio.create_task(self._started(options))
            await asyncio.wait({starting, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
                return
            service = starting.result()
            self.say(f"Serving {service.backend_name} with epoch {lease.epoch}.")
            serving = asyncio.create_task(LinkServer(redis, names, service, lease).run())
            await asyncio.wait({serving, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()  # it never ends by itself: a bug, and loud
        finally:
            # The link first: what it had open is not told of our end, and may be taken on by the next engine.
            # Cancelled once: a second cancel would cut short the server's own orderly end.
            ending = [task for task in (serving, stopping) if task is not None]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            if service is not None:
                how = "Stopping" if stop.is_set() else "Standing down"
                self.say(f"{how}: ending requests, writing records, releasing models.")
                await service.stop()
            await end([keeping])
            await lease.release()

    async def _started(self, options: dict[str, Any]) -> Service:
        """A service on its feet; a database that is away is waited for."""
        while True:
            try:
                service = await asyncio.to_thread(self._made, options)
                try:
                    await service.start()
                except BaseException:
                    await service.stop()
                    raise
                return service
            except DatabaseError as error:
                log.error("the database does not answer: %s", error)
                await asyncio.sleep(DATABASE_AGAIN_S)

    def _made(self, options: dict[str, Any]) -> Service:
        try:
            return launch.service(options, self._embed, self.say)
        finally:
            connections.close_all()  # this thread's: by the next time the database may be another
