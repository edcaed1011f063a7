"""The scheduler: what happened goes in, what to do next comes out.

Rule: `handle` is the only mutator. It first takes the event in, then decides: go on with the swap under
way, else plan one, then fill the free slots. It is deterministic: an event log replays to the same
commands. Every request ends exactly once: finished, rejected, failed or cancelled.
Must not know: who carries the commands out, or whether `now` is real or simulated seconds.

The policy and its proofs are in docs/scheduling.md; the rules themselves in policy.py.
"""

from dataclasses import replace

from optimizer.core import events as ev
from optimizer.core.admission import refusal
from optimizer.core.asking import Asking
from optimizer.core.commands import (
    CancelGeneration,
    Command,
    Fail,
    RejectReason,
    StartGeneration,
    WakeAt,
)
from optimizer.core.events import Event
from optimizer.core.job import Job
from optimizer.core.queues import Entry
from optimizer.core.slots import next_entry, slot_for
from optimizer.core.state import ModelState, Running, Slot, State
from optimizer.core.swapping import NEVER, Swapping
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue

BACK_OFF_S = 5.0  # after a second failed load; doubles with each further one
LONGEST_BACK_OFF_S = 60.0
SOONEST_WAKE_S = 0.001  # a timer never fires twice in one instant, whatever the rounding


class Scheduler(Asking):
    """One node's scheduler. The same object runs production and the simulation."""

    def __init__(self, thresholds: Thresholds, catalogue: Catalogue) -> None:
        super().__init__(State(thresholds, catalogue))
        self._swapping = Swapping(self._state)
        self._commands: list[Command] = []
        self._quiet = False  # the event in hand cannot make a swap due: somebody more behind others, a first token
        self._wake_at = NEVER  # when time alone may make one due
        self._seq = 0

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what happened at `now` (seconds, never decreasing) and say what to do next.

        Facts about requests or models that are not (or no longer) known are ignored: they are late.
        Raises ValueError when a job id is used twice at once (a bug of the caller).
        """
        commands = self._commands = []
        self._quiet = False
        self._take_in(event, now)
        if not self._state.lost:
            if not self._quiet or now >= self._wake_at:
                self._wake_at = self._swapping.decide(commands, now)
            self._fill_slots(now)
            if self._wake_at < NEVER:
                commands.append(WakeAt(max(self._wake_at, now + SOONEST_WAKE_S)))
        return commands

    # --- taking an event in ----------------------------------------------------------------------

    def _take_in(self, event: Event, now: float) -> None:
        st = self._state
        match event:
            case ev.RequestArrived(job, elsewhere):
                self._arrived(job, elsewhere, now)
            case ev.RequestTakenOver():
                self._taken_over(event)
            case ev.RequestGivenAway(job_id):
                if entry := st.entries.get(job_id):
                    st.model(entry.job.model).queue.remove(entry)
                    self._left(entry)
                    st.counters.given_away += 1
            case ev.PrefillFinished(job_id):
                self._quiet = True
                if run := st.running.get(job_id):
                    run.prefilled_at = now
            case ev.GenerationFinished():
                self._finished(event, now)
            case ev.GenerationFailed(job_id, reason, retry):
                self._broke_off(job_id, reason, retry, now)
            case ev.GenerationCancelled(job_id):
                if run := self._vacate(job_id, now):
                    st.counters.cancelled += 1
            case ev.RequestCancelled(job_id):
                self._cancelled(job_id)
            case ev.TimerFired():
                pass
            case ev.ModelLoaded():
                self._loaded(event, now)
            case ev.ModelLoadFailed(model, reason):
                self._load_failed(model, reason, now)
            case ev.ModelEvicted(model):
                self._evicted(model, now)
            case ev.ResidencyObserved(residents):
                self._observed(residents, now)
            case ev.BackendLost(reason):
                self._lost(reason, now)
            case ev.BackendRecovered(residents):
                st.lost = ""
                self._observed(residents, now)
            case ev.ThresholdsChanged(thresholds):
                self._thresholds_changed(thresholds)
            case ev.CatalogueChanged(catalogue):
                self._catalogue_changed(catalogue)
            case _:
                self._operator(event)

    def _operator(self, event: Event) -> None:
        st = self._state
        match event:
            case ev.IntakePaused():
                st.intake_paused = True
            case ev.IntakeResumed():
                st.intake_paused = False
            case ev.NodeDrained():
                st.drained = True
            case ev.NodeResumed():
                st.drained = False
            case ev.AgentPaused(agent):
                st.paused_agents.add(agent)
            case ev.AgentResumed(agent):
                st.paused_agents.discard(agent)
            case ev.ModelPinned(model):
                st.pinned.add(model)
            case ev.ModelUnpinned(model):
                st.pinned.discard(model)
            case ev.LoadRequested(model):
                st.wanted[model] = None
                st.unwanted.pop(model, None)
                st.put_out.discard(model)
            case ev.EvictionRequested(model):
                st.unwanted[model] = None
                st.wanted.pop(model, None)
                st.put_out.add(model)

    def _arrived(self, job: Job, elsewhere: int, now: float) -> None:
        st = self._state
        if job.id in st.entries or job.id in st.running:
            raise ValueError(f"job id {job.id} is already here")
        st.counters.arrived += 1
        if job.model not in st.catalogue.models:
            self._fail(job.id, f"model '{job.model}' is not served")
        elif reject := refusal(st, job, now, elsewhere):
            self._quiet = True
            st.counters.rejected += 1
            if reject.reason is RejectReason.SYSTEM_FULL:
                st.promises.make(job.agent, now, reject.retry_after_s)
            self._commands.append(reject)
        else:
            if st.promises.due(job.agent):
                st.promises.keep(job.agent)
            model = self._awaited(job.model)
            self._quiet = len(model.queue) > 0
            entry = self._entry(job, now)
            model.queue.push(entry)
            self._joined(entry)

    def _entry(self, job: Job, arrived: float) -> Entry:
        self._seq += 1
        cost_s = self._state.estimates.run_s(job.model, job.prompt_tokens, job.expected_tokens)
        return Entry(job, arrived, self._seq, cost_s)

    def _awaited(self, name: str) -> ModelState:
        """A model that somebody joins; it has saved up no claim on the slots while nobody waited for it."""
        model = self._state.model(name)
        if not model.queue:
            model.served_s = max(model.served_s, self._state.served_s)
        return model

    def _taken_over(self, event: ev.RequestTakenOver) -> None:
        """Admitted already: no limit applies. One that broke off elsewhere goes before everybody."""
        st, job = self._state, event.job
        st.counters.taken_over += 1
        if job.model not in st.catalogue.models:
            self._fail(job.id, f"model '{job.model}' is not served")
            return
        model, entry = self._awaited(job.model), self._entry(job, event.arrived)
        if event.retried:
            entry.retried = True
            model.queue.push_front(entry)
        else:
            model.queue.push(entry)
        self._joined(entry)

    def _finished(self, event: ev.GenerationFinished, now: float) -> None:
        st = self._state
        if not (run := self._vacate(event.job_id, now)):
            return
        job = run.entry.job
        st.estimates.observe_run(job.model, event.prompt_tokens, event.output_tokens, event.prefill_s, event.decode_s)
        actual_s = event.prefill_s + event.decode_s or now - run.started
        st.model(job.model).queue.charge(job.agent, job.weight, actual_s - run.entry.cost_s)
        if run.cancelled:
            st.counters.cancelled += 1
        else:
            st.counters.finished += 1

    def _broke_off(self, job_id: str, reason: str, retry: bool, now: float) -> None:
        """A run ended without an answer: once more from the front if nothing reached the caller, else it failed."""
        if not (run := self._vacate(job_id, now)):
            return
        if run.cancelled:
            self._state.counters.cancelled += 1
        elif retry and not run.entry.retried:
            self._requeue(run.entry)
        else:
            self._fail(job_id, reason)

    def _cancelled(self, job_id: str) -> None:
        st = self._state
        if entry := st.entries.get(job_id):
            st.model(entry.job.model).queue.remove(entry)
            self._left(entry)
            st.counters.cancelled += 1
        elif (run := st.running.get(job_id)) and not run.cancelled:
            run.cancelled = True
            self._commands.append(CancelGeneration(job_id))

    def _loaded(self, event: ev.ModelLoaded, now: float) -> None:
        st, model = self._state, self._state.model(event.model)
        st.ledger.load_succeeded(event.model, event.footprint_mb, event.vram_mb)
        st.counters.loads += 1
        if st.loading == event.model:
            st.loading = None
            st.estimates.observe_load(event.model, now - st.since[event.model])
        model.failures, model.retry_at, model.load_error, model.passed = 0, 0.0, "", 0
        st.wanted.pop(event.model, None)
        self._came_in(event.model, now)

    def _came_in(self, name: str, now: float) -> None:
        model = self._state.model(name)
        model.loaded_at = model.idle_since = now
        model.gate = {entry.job.id for entry in model.queue}
        model.served = False
        model.served_s = max(model.served_s, self._state.served_s)

    def _load_failed(self, name: str, reason: str, now: float) -> None:
        """Once more; then those who wait are failed, and new ones wait for the back-off."""
        st, model = self._state, self._state.model(name)
        if st.loading != name:
            return
        st.loading = None
        st.ledger.load_failed(name)
        st.counters.load_failures += 1
        model.failures += 1
        model.load_error = reason
        if model.failures >= 2:
            model.retry_at = now + min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2 ** (model.failures - 2))
            st.wanted.pop(name, None)
            self._fail_waiting(name, f"model '{name}' cannot be loaded: {reason}")

    def _evicted(self, name: str, now: float) -> None:
        st = self._state
        if name not in st.ledger.places:
            return
        st.ledger.gone(name)
        st.counters.evictions += 1
        st.model(name).gate.clear()
        if name in st.since:
            st.estimates.observe_eviction(name, now - st.since[name])

    def _observed(self, residents: tuple[ev.Resident, ...], now: float) -> None:
        st = self._state
        before = st.ledger.loaded()
        st.ledger.observe(residents)
        for name in st.ledger.loaded():
            if name not in before:
                self._came_in(name, now)
        for name in before:
            if name not in st.ledger.places:
                st.model(name).gate.clear()

    def _lost(self, reason: str, now: float) -> None:
        """Everything on the backend is gone. Those without a token are requeued, once; the others fail."""
        st = self._state
        st.lost = reason or "no answer"
        st.loading = st.swap = None
        st.ledger.clear()
        for model in st.models.values():
            model.gate.clear()
        # The earliest started last, so that it is the first in the queue again.
        for job_id in sorted(st.running, key=lambda i: st.running[i].entry.seq, reverse=True):
            self._broke_off(job_id, f"the backend was lost: {st.lost}", st.running[job_id].prefilled_at is None, now)

    def _thresholds_changed(self, thresholds: Thresholds) -> None:
        st = self._state
        st.thresholds = thresholds
        st.ledger.redeclare(thresholds.usable_mb, st.catalogue)
        for model in st.models.values():
            model.queue.reorder(thresholds.order)
        st.slots += [Slot() for _ in range(thresholds.slots - len(st.slots))]
        self._drop_surplus_slots()

    def _catalogue_changed(self, catalogue: Catalogue) -> None:
        st = self._state
        st.catalogue = catalogue
        st.ledger.redeclare(st.thresholds.usable_mb, catalogue)
        st.estimates.redeclare(catalogue)
        for name in [*st.models, *catalogue.models]:
            if name in catalogue.models:
                st.model(name)
            else:
                self._fail_waiting(name, f"model '{name}' is no longer served")

    # --- slots ---------------------------------------------------------------------------------------

    def _fill_slots(self, now: float) -> None:
        """Both slots are busy whenever somebody waits who may start."""
        st = self._state
        while len(st.running) < st.thresholds.slots and (entry := next_entry(st, now)):
            if entry.job.deadline is not None and now > entry.job.deadline:
                st.model(entry.job.model).queue.remove(entry)
                self._left(entry)
                self._fail(entry.job.id, "its deadline passed while it waited")
            else:
                self._start(entry, now)

    def _start(self, entry: Entry, now: float) -> None:
        st, job = self._state, entry.job
        model = st.model(job.model)
        st.served_s = max(st.served_s, model.served_s)
        st.promises.freed(now)
        model.served_s += entry.cost_s
        model.served |= entry is model.queue.oldest()
        model.queue.start(entry)
        self._left(entry)
        number = slot_for(st, job)
        slot = st.slots[number]
        slot.job_id, slot.model, slot.prefix, slot.used_at = job.id, job.model, job.prefix, now
        st.running[job.id] = Running(entry, number, now, ends=now + entry.cost_s)
        model.running += 1
        st.counters.starts += 1
        self._commands.append(StartGeneration(job.id, job.model, number))

    def _vacate(self, job_id: str, now: float) -> Running | None:
        """A run is over: its slot is free. None when it was not running (a late fact)."""
        st = self._state
        run = st.running.pop(job_id, None)
        if run:
            st.slots[run.slot].job_id = ""
            st.slots[run.slot].used_at = now
            model = st.model(run.entry.job.model)
            model.running -= 1
            model.idle_since = now
            self._drop_surplus_slots()
        return run

    def _drop_surplus_slots(self) -> None:
        st = self._state
        while len(st.slots) > st.thresholds.slots and not st.slots[-1].job_id:
            st.slots.pop()

    # --- joining, leaving and ending -------------------------------------------------------------------

    def _joined(self, entry: Entry) -> None:
        st, agent = self._state, entry.job.agent
        st.entries[entry.job.id] = entry
        st.waiting_of_agent[agent] = st.waiting_of_agent.get(agent, 0) + 1

    def _left(self, entry: Entry) -> None:
        """It waits no longer, neither in its queue nor at the gate."""
        st, agent = self._state, entry.job.agent
        del st.entries[entry.job.id]
        st.waiting_of_agent[agent] -= 1
        if not st.waiting_of_agent[agent]:
            del st.waiting_of_agent[agent]
        st.model(entry.job.model).gate.discard(entry.job.id)

    def _requeue(self, entry: Entry) -> None:
        again = replace(entry, retried=True)  # a new one: the queue may still hold the old one, not yet swept out
        self._state.counters.requeues += 1
        self._state.model(again.job.model).queue.push_front(again)
        self._joined(again)

    def _fail(self, job_id: str, reason: str) -> None:
        self._state.counters.failed += 1
        self._commands.append(Fail(job_id, reason))

    def _fail_waiting(self, model: str, reason: str) -> None:
        queue = self._state.model(model).queue
        for entry in list(queue):
            queue.remove(entry)
            self._left(entry)
            self._fail(entry.job.id, reason)
