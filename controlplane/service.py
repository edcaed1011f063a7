"""The composition root: one process's engine, with what keeps its tables fresh and its records stored.

Rule: the only place where backend, pipeline, runner and stores are put together. The ORM is reached through
`tables`, `queries` and `stores`, always on one database thread; nothing on the request path waits for it.
Must not know: HTTP or pages. In one process it is the web's `front.Front` itself; `up` hands it to `asgi.build`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from django.db import DatabaseError, connections

from controlplane import publisher, queries, stores, webhooks
from controlplane.clock import ClockDoubt
from controlplane.control import Control
from controlplane.database import in_thread
from controlplane.desk import LocalDesk
from controlplane.loops import every
from controlplane.monitoring import Monitoring
from controlplane.publisher import Publisher
from controlplane.tables import Tables
from controlplane.task_runner import TaskRunner
from optimizer import discovery
from optimizer.core.errors import BackendError, BackendUnavailable, ConfigurationError
from optimizer.core.request import AgentProfile
from optimizer.core.tiers import Catalogue
from optimizer.embedders.prepared import PreparedEmbedder
from optimizer.embedding import default_embedder, model_on_ollama
from optimizer.nodes import Site, sites
from optimizer.pipeline import Pipeline
from optimizer.ports import Backend, Embedder, Engine, ModelInfo
from optimizer.runner import Runner
from optimizer.tokens import LlamaTokenCounter

log = logging.getLogger("narrowgauge.service")

TABLES_EVERY_S = 0.5  # how soon a change made elsewhere (admin, a command) takes effect here
FLUSH_EVERY_S = 0.5  # how often records and cached answers are written
MODELS_EVERY_S = 30.0  # how often the backend is asked which models it has
NOTES_EVERY_S = 15.0  # how often measurements are stored
EMBEDDER_LOAD_S = 60.0  # how long a slow embedder may load before the log says that it does not answer
CLEAN_EVERY_S = 3600.0  # how often expired answers leave the memory
WEBHOOKS_EVERY_S = 2.0  # how often due webhooks are looked for


class Service:
    """`await start()` on the loop that serves; `await stop()` before that loop ends."""

    def __init__(self, backend: Backend | Sequence[Site], embed: Embedder | None = None) -> None:
        """`backend`: the only one, or the sites of several nodes. `embed`: as chosen by `embedding.for_serving`; None
        is the default one."""
        self._sites = sites(backend)
        self.backend = self._sites[0].backend
        self._embed = embed or default_embedder()
        self.records = stores.RecordBuffer()
        self.cache_store = stores.CacheBuffer()
        self.publisher = Publisher()
        self.monitoring = Monitoring(self)
        self.control = Control(self)
        self.desk = LocalDesk(self)
        self._tables: Tables | None = None
        self._runner: Runner | None = None
        self._installed: dict[str, Sequence[ModelInfo]] = {}  # by node
        self._tasks: TaskRunner | None = None
        self._database = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._post = ThreadPoolExecutor(1, thread_name_prefix="webhooks")  # receivers may be slow
        self._loops: list[asyncio.Task[None]] = []
        self._clock_doubt = ClockDoubt()

    # what the web asks for -------------------------------------------------------------------------

    @property
    def runner(self) -> Runner:
        """The engine. Raises BackendUnavailable while it is still starting."""
        if self._runner is None:
            raise BackendUnavailable("Narrowgauge is starting; try again in a moment")
        return self._runner

    @property
    def tables(self) -> Tables:
        """Agents, keys, thresholds, catalogue. Raises BackendUnavailable while they are being read."""
        if self._tables is None:
            raise BackendUnavailable("Narrowgauge is starting; try again in a moment")
        return self._tables

    @property
    def tasks(self) -> TaskRunner:
        """What works the durable tasks off. Raises BackendUnavailable while it is still starting."""
        if self._tasks is None:
            raise BackendUnavailable("Narrowgauge is starting; try again in a moment")
        return self._tasks

    @property
    def engine(self) -> Engine:
        """The runner, as the web sees it (`front.Front`)."""
        return self.runner

    @property
    def backend_name(self) -> str:
        return self.backend.name

    def agent_for(self, token: str) -> AgentProfile | None:
        """The agent a bearer token speaks for; notes that its key was used."""
        return self.tables.agent_for(token, time.time(), self.key_used)

    def key_used(self, prefix: str, at: float) -> None:
        self.records.key_used(prefix, at)

    @property
    def storage(self) -> dict[str, Any]:
        """What waits to be written, and why it is not; `trouble` is "" when all is well."""
        trouble = self.records.trouble or self.cache_store.trouble
        return {
            "waiting": len(self.records) + len(self.cache_store),
            "dropped": self.records.dropped,
            "trouble": trouble,
        }

    def tasks_changed(self) -> None:
        """Durable tasks were stored or cancelled: what runs them looks at once."""
        if self._tasks is not None:
            self._tasks.changed()

    async def in_database(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run ORM work on the database thread and return its result."""
        return await in_thread(self._database, work, *arguments)

    # life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the tables, start the backend, adopt what it holds.

        Raises ConfigurationError when the stored state cannot be served, ModelFileMissing when the backend
        lacks its files. A backend that does not answer yet is waited for in the background.
        """
        tables = await self.in_database(Tables.load, self.backend.name)
        self._check_embedder(tables.catalogue)
        pipeline = Pipeline(
            catalogue=tables.catalogue,
            thresholds=tables.thresholds,
            count=LlamaTokenCounter(),
            embed=self._embed,
            embed_at_once=default_embedder(),
            realm=self.backend.name,
        )
        for entry in await self.in_database(stores.load_cache):
            pipeline.cache.put(entry, time.time())
        for agent, tier, good, total in await self.in_database(queries.outcomes):
            pipeline.selector.outcomes.restore(agent, tier, good, total)
        runner = Runner(
            backend=[replace(site, own=tables.nodes.get(site.name, site.own)) for site in self._sites],
            pipeline=pipeline,
            agents=tables.agents,
            records=self.records,
            cache_store=self.cache_store,
        )
        self._tables, self._runner = tables, runner
        self._tasks = TaskRunner(runner, lambda: self.tables, self.in_database)
        await runner.start()
        await self._ask_models()
        self._loops = [
            asyncio.create_task(every(TABLES_EVERY_S, self.refresh)),
            asyncio.create_task(every(FLUSH_EVERY_S, self.flush)),
            asyncio.create_task(every(MODELS_EVERY_S, self._ask_models)),
            asyncio.create_task(every(NOTES_EVERY_S, self._take_notes)),
            asyncio.create_task(every(CLEAN_EVERY_S, self._clean)),
            asyncio.create_task(every(WEBHOOKS_EVERY_S, self._deliver)),
            asyncio.create_task(every(publisher.EVERY_S, self._publish)),
            *[asyncio.create_task(every(seconds, work)) for seconds, work in self.monitoring.loops()],
        ]
        self._tasks.start()
        if isinstance(self._embed, PreparedEmbedder):
            self._loops.append(asyncio.create_task(_warm(self._embed)))

    async def stop(self) -> None:
        """End every request, write what is left, release the backend and the database."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._tasks is not None:
            await self._tasks.stop()
        if self._runner is not None:
            with suppress(DatabaseError):  # one that is away must not keep the models
                await self._take_notes()
            await self._runner.close()
            with suppress(DatabaseError):
                await self.monitoring.measure()
        if isinstance(self._embed, PreparedEmbedder):
            await self._embed.close()
        await self.flush()
        for thread in (self._post, self._database):
            await in_thread(thread, connections.close_all)
            thread.shutdown()

    def _check_embedder(self, catalogue: Catalogue) -> None:
        model = model_on_ollama(self._embed.name)
        if self.backend.name == "ollama" and model in map(discovery.canonical, catalogue.models):
            raise ConfigurationError(
                f"{model} serves agents; the embedder needs a model of its own, for example ollama:all-minilm"
            )

    async def look(self) -> None:
        await self.refresh()

    # the loops ---------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Take up changes of the stored state; called by the loop, and at once after a change made here."""
        version = await self.in_database(queries.state_version)
        if version != self.tables.version:
            self._tables = await self.in_database(Tables.load, self.backend.name)
            self._reconfigure()
            self.runner.forget(self.tables.invalidated)

    async def _ask_models(self) -> None:
        try:
            installed = await self.runner.nodes.installed()
        except BackendError:
            return  # the runner's watch deals with a backend that does not answer
        installed = {**self._installed, **installed}  # a node that is lost keeps its models
        if installed != self._installed:
            self._installed = installed
            self._reconfigure()
            absent = discovery.missing(self.tables.catalogue, self.runner.catalogue())
            if absent:
                log.warning("not installed on %s: %s", self.backend.name, ", ".join(absent))

    def _reconfigure(self) -> None:
        tables = self.tables
        catalogue: Catalogue = tables.catalogue
        if self._installed:
            catalogue = discovery.served(catalogue, [info for infos in self._installed.values() for info in infos])
        self.runner.reconfigure(
            catalogue=catalogue,
            thresholds=tables.thresholds,
            agents=tables.agents,
            own=tables.nodes,
            catalogues={node: discovery.served(tables.catalogue, infos) for node, infos in self._installed.items()},
        )

    async def flush(self) -> None:
        """Write what waits in the buffers."""
        await self.in_database(self.records.flush)
        await self.in_database(self.cache_store.flush)

    async def _take_notes(self) -> None:
        """Keep what was learned since: the nodes' state, the models' measured figures, the cache's hits."""
        journal = self.runner.journal
        for node in self.runner.views():
            await self.in_database(stores.node_state, node.name, node.state, node.reason)
        for model, measured in tuple(journal.measured.items()):  # a load may end while the database is waited for
            prefill_tps, decode_tps = measured.speeds
            await self.in_database(
                partial(
                    stores.save_measurement,
                    self.backend.name,
                    model,
                    footprint_mb=measured.load.footprint_mb if measured.load else None,
                    vram_mb=measured.load.vram_mb if measured.load else None,
                    load_s=measured.load.load_s if measured.load else None,
                    prefill_tps=prefill_tps,
                    decode_tps=decode_tps,
                )
            )
        await self.in_database(stores.save_hits, self.runner.pipeline.cache.entries())

    async def _publish(self) -> None:
        await self.publisher.publish(self.runner, time.time(), self.control.intake)

    async def _deliver(self) -> None:
        await in_thread(self._post, webhooks.deliver_due, time.time())

    async def _clean(self) -> None:
        if self._clock_doubt.justified():
            return
        self.cache_store.delete(self.runner.pipeline.cache.expire(time.time()))


async def _warm(embed: PreparedEmbedder) -> None:
    """Let a slow embedder load before the first request needs it; says in the log when it cannot be had."""
    why = await embed.prepare(["ready"], wait_s=EMBEDDER_LOAD_S)
    if why:
        log.warning("the cache takes exact repeats only until the embedder answers: %s", why)
