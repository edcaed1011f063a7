"""The runner: the Engine port in this process. Shapes requests, shares answers, and gives the rest to a node.

Rule: every request ends exactly once: replied, rejected, cancelled or failed. Identical requests follow one flight.
Must not know: which backend a node drives, where records are kept, or HTTP.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from optimizer.combiner import Combiner, Part
from optimizer.core import events, outcome
from optimizer.core.caching import Hit
from optimizer.core.commands import RejectReason
from optimizer.core.errors import AgentLimit, BackendUnavailable, Cancelled, NarrowgaugeError
from optimizer.core.events import Event, Resident
from optimizer.core.fleet import Fleet
from optimizer.core.forecast import View
from optimizer.core.quota import Quota, Use
from optimizer.core.request import AgentProfile, Kind, Request
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.flight import Flight
from optimizer.journal import Journal
from optimizer.nodes import Nodes, NodeView, Site, sites
from optimizer.pipeline import Pipeline, Routed
from optimizer.ports import (
    Backend,
    CacheStore,
    Completed,
    Delta,
    Finished,
    ModelInfo,
    NotPrepared,
    RecordStore,
    Reply,
    Waiting,
)
from optimizer.refusals import refusal
from optimizer.replies import begun, from_cache, from_part, templated, whole
from optimizer.summariser import PROTOCOL as SUMMARY
from optimizer.summariser import Summariser

PAUSED_RETRY_S = 30.0  # nobody knows when a person resumes an agent
SOONEST_RETRY_S = 1.0  # Retry-After is whole seconds on the wire
INTERNAL_PROTOCOLS = ("combined", SUMMARY)  # requests of our own, behind the callers' ones
WAITING_EVERY_S = 2.0  # how often a queued caller hears its position


class Runner:
    """An Engine (ports.py) in this process. Build it, `start` it on the loop that will submit, `close` it."""

    def __init__(
        self,
        *,
        backend: Backend | Sequence[Site],
        pipeline: Pipeline,
        agents: Mapping[str, AgentProfile],
        records: RecordStore,
        cache_store: CacheStore,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`backend`: the only one, or the sites of several nodes of one kind."""
        places = sites(backend)
        self.backend_name = places[0].backend.name
        self.simulated = places[0].backend.simulated
        self.pipeline = pipeline
        self.agents: Mapping[str, AgentProfile] = {}
        self._quota = Quota()
        self.journal = Journal(records, wall_clock)
        self.journal.store_prompts = pipeline.thresholds.store_prompts
        self._cache_store = cache_store
        self._clock = clock
        self._wall_clock = wall_clock
        self.flights: dict[str, Flight] = {}  # by job id, until ended and followed by nobody
        self._shared: dict[str, Flight] = {}  # by answer key: flights a duplicate may join
        self.nodes = Nodes(
            places, self, self.journal, thresholds=pipeline.thresholds, catalogue=pipeline.catalogue, clock=clock
        )
        self._combiner = Combiner(self.submit)
        self._summariser = Summariser(pipeline, self._submit, self._predicted_wait_s)
        self._take_up(agents)

    # life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring the nodes up; those that do not answer yet are waited for.

        Raises ModelFileMissing with what to do.
        """
        await self.nodes.start()

    async def close(self) -> None:
        """Cancel everything, end every request, release the backends."""
        await self.nodes.stop()
        for flight in list(self.flights.values()):
            if not flight.ended:
                flight.fail(BackendUnavailable("Narrowgauge is shutting down; try again in a moment"))
        await self.nodes.close()

    # the Engine port -------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Fleet:
        """The nodes' schedulers as one."""
        return self.nodes.fleet

    def catalogue(self) -> Catalogue:
        return self.pipeline.catalogue

    async def models(self) -> Sequence[ModelInfo]:
        installed = await self.nodes.installed()
        return list({info.name: info for some in reversed(installed.values()) for info in some}.values())

    async def residents(self) -> Sequence[Resident]:
        return await self.nodes.residents()

    def unready(self) -> str:
        return self.nodes.unready()

    async def submit(self, request: Request) -> AsyncGenerator[Reply, None]:
        async with aclosing(self._submit(request, self.agents[request.agent])) as replies:
            async for reply in replies:
                yield reply

    async def _submit(self, request: Request, agent: AgentProfile) -> AsyncGenerator[Reply, None]:
        entry = self.journal.open(request, self._clock())
        counted = False
        try:
            if agent.paused:
                raise refusal(RejectReason.AGENT_PAUSED, PAUSED_RETRY_S, 0.0)
            if request.protocol not in INTERNAL_PROTOCOLS:  # else its members were counted
                self._let_in(agent)
                counted = True
            routed = self.pipeline.route(request, agent, self._predicted_wait_s, self.scheduler.residents())
            entry.route(routed)
            try:
                hit = self.pipeline.look_up(routed, self._wall_clock())
            except NotPrepared as wanted:
                routed, hit = await self._looked_up(routed, wanted)
                entry.route(routed)
            if hit is not None:
                for item in from_cache(routed, hit, self.simulated):
                    entry.note(item, self._clock())
                    yield item
                return
            part = await self._combined(routed)
            if part is not None:
                for item in from_part(routed, part):
                    entry.note(item, self._clock())
                    yield item
                return
            flight, joined = await self._boarded(routed, await self._summariser.summary(routed))
            entry.board(flight, joined)
            async with aclosing(self._answer(flight, joined)) as replies:
                async for reply in replies:
                    entry.note(reply, self._clock())
                    yield reply
        except NarrowgaugeError as error:
            entry.fail(error)
            raise
        finally:
            entry.close(self._clock())
            if counted:
                self._quota.leave(agent, entry.tokens_run, self._clock())

    def _let_in(self, agent: AgentProfile) -> None:
        """Count a request against its agent's own limits. Raises AgentLimit."""
        now = self._clock()
        over = self._quota.admit(agent, now)
        if over is None:
            return
        wait_s = over.retry_after_s
        if wait_s is None:  # until the first of its own has ended
            own = (flight.id for flight in self.flights.values() if flight.shaped.job.agent == agent.slug)
            ends = [end for job_id in own if (end := self.scheduler.ends_in_s(job_id, now)) is not None]
            wait_s = min(ends, default=SOONEST_RETRY_S)
        wait_s = max(SOONEST_RETRY_S, wait_s)
        raise AgentLimit(f"this agent may send {over.limit}; try again in about {wait_s:.0f} s", retry_after_s=wait_s)

    async def _combined(self, routed: Routed) -> Part | None:
        """A share of a combined answer, for agents that opted in; None when it is to be asked singly."""
        limits = self.pipeline.thresholds
        if not routed.agent.combine or routed.request.protocol == "combined":
            return None
        return await self._combiner.answer(routed, limits.grace_s, limits.batch_max)

    async def _answer(self, flight: Flight, joined: bool) -> AsyncGenerator[Reply, None]:
        """What one follower of a flight sees; when the last one leaves early, the work stops."""
        routed = flight.shaped.routed
        template = routed.request.task.template
        arrived = self._clock()
        announced = False
        flight.followers += 1
        try:
            async with aclosing(flight.follow(WAITING_EVERY_S)) as items:
                yield self._waiting(flight)
                async for item in items:
                    if item is None:
                        if not announced:
                            yield self._waiting(flight)
                        continue
                    if not announced:
                        announced = True
                        yield begun(flight, joined, arrived, self.simulated)
                    if isinstance(item, Delta):
                        if not template:
                            yield item
                        continue
                    if template:
                        # A template needs the whole answer, so a templated stream arrives in one piece.
                        item = templated(item, template, routed.request.task.language)
                        yield Delta(item.text, item.thinking, item.tool_calls)
                    yield item
        finally:
            flight.followers -= 1
            if flight.followers == 0:
                self._shared.pop(routed.key, None)
                if not flight.ended:
                    self.nodes.tell(events.RequestCancelled(flight.id))
                    if not flight.ended and flight.slot is None:
                        flight.fail(Cancelled("the caller left"))
                        self.flights.pop(flight.id, None)

    def _waiting(self, flight: Flight) -> Waiting:
        position, eta_s, reason = self.scheduler.position(flight.id, self._clock())
        return Waiting(position, eta_s, reason)

    # waiting for vectors: an embedder that takes its time (embedders.prepared) ----------------------

    async def _looked_up(self, routed: Routed, wanted: NotPrepared) -> tuple[Routed, Hit | None]:
        """Look up once the vector is there; where it cannot be had, exact repeats only, and the record says why."""
        why = await wanted.prepare()
        if not why:
            try:
                return routed, self.pipeline.look_up(routed, self._wall_clock())
            except NotPrepared:
                why = "the embedder's memory is too small"
        routed = self.pipeline.exact_only(routed, why)
        return routed, self.pipeline.look_up(routed, self._wall_clock())

    async def _boarded(self, routed: Routed, summary: str | None) -> tuple[Flight, bool]:
        """Board once the vectors are there; where they cannot be had, the embedder that needs none stands in."""
        try:
            return self._board(routed, summary)
        except NotPrepared as wanted:
            await wanted.prepare()
        try:
            return self._board(routed, summary)
        except NotPrepared:
            return self._board(routed, summary, at_once=True)

    # boarding --------------------------------------------------------------------------------------

    def _board(self, routed: Routed, summary: str | None, *, at_once: bool = False) -> tuple[Flight, bool]:
        """Join an identical running request, or put a new one before the scheduler. May raise NotPrepared."""
        if (unready := self.nodes.unready()) and not self.flights:
            raise BackendUnavailable(f"no model can be served right now: {unready}")
        shareable = self.pipeline.thresholds.coalesce and routed.request.cache_read
        other = self._shared.get(routed.key) if shareable else None
        if other is not None and not other.ended and other.error is None:
            return other, True
        shaped = self.pipeline.shape(routed, summary, at_once=at_once)
        now = self._clock()
        if shaped.job.deadline is not None:
            shaped = replace(shaped, job=replace(shaped.job, deadline=now + shaped.job.deadline))
        flight = Flight(shaped, now, self.nodes.load_times_s(now))
        self.flights[flight.id] = flight
        if shareable:
            self._shared[routed.key] = flight
        self.nodes.tell(events.RequestArrived(shaped.job))
        if flight.error is not None:  # refused at admission
            raise flight.error
        return flight, False

    def _predicted_wait_s(self, model: str) -> float:
        return self.scheduler.predicted_wait_s(model, self._clock())

    # what the node tells: Home (node.py) -----------------------------------------------------------------

    def gone(self, flight: Flight) -> None:
        self.flights.pop(flight.id, None)
        if self._shared.get(flight.shaped.routed.key) is flight:
            del self._shared[flight.shaped.routed.key]

    def refused(self, job_id: str, error: NarrowgaugeError) -> None:
        flight = self.flights.get(job_id)
        if flight is not None:
            self.gone(flight)
            if not flight.ended:
                flight.fail(error)

    def completed(self, flight: Flight, finished: Finished) -> None:
        shaped, request = flight.shaped, flight.shaped.routed.request
        completed = whole(flight, finished, self._clock())
        flight.finish(completed)
        self.journal.finished(shaped.job.model, finished)
        if request.kind is Kind.EMBED:
            return
        self._judge(flight, completed)
        self.pipeline.lengths.observe(
            shaped.job.agent, shaped.job.model, shaped.routed.selection.tier, finished.output_tokens
        )
        kept = self.pipeline.remember(shaped.routed, completed, self._wall_clock())
        if kept is not None:
            entry, evicted = kept
            self._cache_store.put(entry)
            self._cache_store.delete(evicted)

    def _judge(self, flight: Flight, completed: Completed) -> None:
        """A plainly bad answer counts against its tier for this agent; the simulated card's prove nothing."""
        routed = flight.shaped.routed
        if self.simulated or routed.request.protocol in INTERNAL_PROTOCOLS:
            return
        flight.good = outcome.automatic(
            text=completed.text,
            done_reason=completed.done_reason,
            tool_calls=len(completed.tool_calls),
            format=routed.request.format,
            limited="num_predict" in routed.request.options,
        )
        if flight.good is not None:
            self.pipeline.selector.outcomes.observe(routed.agent.slug, routed.selection.tier, flight.good)

    # steering ------------------------------------------------------------------------------------------

    def reconfigure(
        self,
        *,
        catalogue: Catalogue,
        thresholds: Thresholds,
        agents: Mapping[str, AgentProfile],
        own: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        catalogues: Mapping[str, Catalogue] = MappingProxyType({}),
    ) -> None:
        """New tables take effect at once; waiting and running requests go on.

        By node: `own` are its thresholds, `catalogues` what it serves where that is less than all.
        """
        self._take_up(agents)
        self.pipeline.reconfigure(catalogue=catalogue, thresholds=thresholds)
        self.journal.store_prompts = thresholds.store_prompts
        self.nodes.reconfigure(thresholds, catalogue, own, catalogues)

    def _take_up(self, agents: Mapping[str, AgentProfile]) -> None:
        """New agents' table; the scheduler is told who was paused or resumed."""
        paused = {slug for slug, agent in agents.items() if agent.paused}
        before = {slug for slug, agent in self.agents.items() if agent.paused}
        self.agents = agents
        for slug in sorted(paused - before):
            self.nodes.tell(events.AgentPaused(slug))
        for slug in sorted(before - paused):
            self.nodes.tell(events.AgentResumed(slug))

    def forget(self, keys: Iterable[str]) -> None:
        """Drop cached answers that people took out of use."""
        for key in keys:
            self.pipeline.cache.invalidate(key=key)

    def steer(self, event: Event, node: str = "") -> None:
        """An operator's wish (pause, pin, load, drain, ...) as the event that says so; `node` where it is about one."""
        self.nodes.tell(event, node)

    def cancel(self, job_id: str) -> bool:
        """An operator cancels a request; False when it is not here any more."""
        flight = self.flights.get(job_id)
        if flight is None or flight.ended:
            return False
        self.nodes.tell(events.RequestCancelled(job_id))
        if not flight.ended:
            self._shared.pop(flight.shaped.routed.key, None)
            flight.fail(Cancelled("an operator cancelled this request"))
            if flight.slot is None:
                self.flights.pop(job_id, None)
        return True

    def view(self) -> tuple[View, float]:
        """The scheduler's picture, and the moment on this runner's clock that it was taken."""
        now = self._clock()
        return self.scheduler.snapshot(now), now

    def views(self) -> list[NodeView]:
        """The same, node by node."""
        return self.nodes.views(self._clock())

    def use_of(self, slug: str) -> Use:
        """What an agent has taken of its own limits; nothing, for one that is not here (yet)."""
        agent = self.agents.get(slug)
        return self._quota.use(agent, self._clock()) if agent is not None else Use(0, None, None)

    def running(self) -> list[Flight]:
        """Flights that hold a slot now."""
        return [f for f in self.flights.values() if f.slot is not None and not f.ended]
