"""What will happen next, for people and for pricing: waits, positions, reasons, the whole picture.

Rule: reads the state, changes nothing, and uses the policy's own verdicts, so that what a person reads is
what the scheduler will do. Waits are fluid estimates: predicted work ahead, shared by the slots.
Must not know: who asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from optimizer.core import policy
from optimizer.core.job import Job
from optimizer.core.placement import Offer
from optimizer.core.policy import Rule, Standing, Verdict
from optimizer.core.queues import Entry
from optimizer.core.state import Counters, State
from optimizer.core.vram import Place

UNKNOWN_S = 60.0  # stands for "nobody can say": the backend is lost, or a pin leaves no room


@dataclass(frozen=True, slots=True)
class SlotView:
    slot: int
    job_id: str  # "" = free; the other fields are then empty
    agent: str
    model: str
    phase: str  # prefill | decode | cancelling | ""
    since: float  # start of the phase
    started: float


@dataclass(frozen=True, slots=True)
class ResidentView:
    model: str
    place: Place
    claim_mb: float  # what the ledger counts
    declared_mb: float  # 0.0 for a model that nobody declared
    footprint_mb: float | None  # measured in all; None until measured
    vram_mb: float | None  # measured in VRAM; less than the footprint means partial offload
    pinned: bool
    since: float  # of its place


@dataclass(frozen=True, slots=True)
class QueueView:
    model: str
    waiting: int
    running: int
    oldest_age_s: float
    work_s: float  # predicted seconds of everything waiting, on one slot
    eta_s: float  # predicted wait of a request that arrived now
    reason: str  # why those waiting wait, in a sentence; "" when nobody does


@dataclass(frozen=True, slots=True)
class ProspectView:
    """A model that is not in VRAM, and what it would take to bring it in now."""

    model: str
    claim_mb: float  # what the ledger would count
    measured: bool  # else as declared
    leaving: tuple[str, ...] | None  # who would have to leave; () = it fits beside, None = pins leave no room


@dataclass(frozen=True, slots=True)
class View:
    """The scheduler at one moment. Times are on the clock of `handle`."""

    now: float
    slots: tuple[SlotView, ...]
    residents: tuple[ResidentView, ...]
    queues: tuple[QueueView, ...]
    usable_mb: float
    used_mb: float
    waiting: int
    swap: str  # what is being swapped, in a sentence; ""
    intake_paused: bool
    paused_agents: tuple[str, ...]
    lost: str  # why the backend is unusable; ""
    counters: Counters
    drained: bool = False  # for maintenance
    prospects: tuple[ProspectView, ...] = ()
    memory_mb: float = 0.0  # of the card


def predicted_wait_s(state: State, model: str, now: float) -> float:
    """Predicted time until a request for `model` that arrived now would start, seconds."""
    return _wait_s(state, model, state.model(model).queue.work_s, now)


def offer(state: State, node: str, job: Job, now: float) -> Offer:
    """What the node would do with a request that arrived now."""
    taken_s = 0.0
    if job.model not in state.ledger.places and not (state.swap and state.swap.target == job.model):
        leaving = _leaving(state, job.model, now) or ()
        taken_s = sum(standing.load_s for standing in leaving)
    return Offer(
        node=node,
        wait_s=predicted_wait_s(state, job.model, now),
        run_s=state.estimates.run_s(job.model, job.prompt_tokens, job.expected_tokens),
        taken_s=taken_s,
        resident=state.ledger.is_loaded(job.model),
        requests=len(state.entries) + len(state.running),
        full=len(state.entries) >= state.thresholds.max_waiting,
        lost=bool(state.lost),
        drained=state.drained,
    )


def drain_s(state: State, now: float) -> float:
    """Predicted time until everything waiting now has been started, seconds."""
    return max((predicted_wait_s(state, name, now) for name, m in state.models.items() if len(m.queue)), default=0.0)


def position(state: State, job_id: str, now: float) -> tuple[int, float, str]:
    """(position in its model's queue from 1, predicted seconds to its start, why it waits).

    (0, 0.0, "running") for one that runs. Raises KeyError for a job that is not here. O(waiting).
    """
    if job_id in state.running:
        return 0, 0.0, "running"
    entry = state.entries[job_id]
    ahead = [other for other in state.model(entry.job.model).queue if other < entry]
    work_s = sum(other.cost_s for other in ahead)
    return len(ahead) + 1, _wait_s(state, entry.job.model, work_s, now), reason(state, entry.job.model, now)


def ends_in_s(state: State, job_id: str, now: float) -> float | None:
    """Predicted seconds until a request has ended; None for one that is not here."""
    run = state.running.get(job_id)
    if run is not None:
        return max(0.0, run.ends - now)
    entry = state.entries.get(job_id)
    return None if entry is None else position(state, job_id, now)[1] + entry.cost_s


def snapshot(state: State, now: float) -> View:
    """Everything a screen shows."""
    return View(
        now=now,
        slots=tuple(_slot(state, number) for number in range(len(state.slots))),
        residents=tuple(_resident(state, model, place) for model, place in state.ledger.places.items()),
        queues=tuple(_queue(state, model, now) for model in state.models),
        usable_mb=state.ledger.usable_mb,
        used_mb=state.ledger.used_mb,
        waiting=len(state.entries),
        swap=_swap_sentence(state, now),
        intake_paused=state.intake_paused,
        paused_agents=tuple(sorted(state.paused_agents)),
        lost=state.lost,
        counters=replace(state.counters),
        drained=state.drained,
        prospects=tuple(_prospect(state, model, now) for model in state.models if model not in state.ledger.places),
        memory_mb=state.thresholds.gpu_memory_mb,
    )


def merged(views: Sequence[View]) -> View:
    """Several nodes as one picture, slots numbered through; that of a single node is its own."""
    if len(views) == 1:
        return views[0]
    slots = [slot for view in views for slot in view.slots]
    queues: dict[str, list[QueueView]] = {}
    for queue in (queue for view in views for queue in view.queues):
        queues.setdefault(queue.model, []).append(queue)
    counters = [view.counters for view in views]
    return View(
        now=views[0].now,
        slots=tuple(replace(slot, slot=number) for number, slot in enumerate(slots)),
        residents=tuple(resident for view in views for resident in view.residents),
        queues=tuple(_merged_queue(some) for some in queues.values()),
        usable_mb=sum(view.usable_mb for view in views),
        used_mb=sum(view.used_mb for view in views),
        waiting=sum(view.waiting for view in views),
        swap="; ".join(view.swap for view in views if view.swap),
        intake_paused=all(view.intake_paused for view in views),
        paused_agents=views[0].paused_agents,
        lost="" if any(not view.lost for view in views) else "; ".join(view.lost for view in views),
        counters=Counters(**{f.name: sum(getattr(c, f.name) for c in counters) for f in fields(Counters)}),
        drained=all(view.drained for view in views),
        prospects=_merged_prospects(views),
        memory_mb=sum(view.memory_mb for view in views),
    )


def _merged_prospects(views: Sequence[View]) -> tuple[ProspectView, ...]:
    """Models that no node has, each where the fewest would have to leave."""
    residents = {resident.model for view in views for resident in view.residents}
    best: dict[str, ProspectView] = {}
    for prospect in (prospect for view in views for prospect in view.prospects if prospect.model not in residents):
        best[prospect.model] = min(best.get(prospect.model, prospect), prospect, key=_leaving_of)
    return tuple(best.values())


def _leaving_of(prospect: ProspectView) -> float:
    return float("inf") if prospect.leaving is None else len(prospect.leaving)


def _merged_queue(queues: Sequence[QueueView]) -> QueueView:
    """One model's queues: a new request starts where it starts soonest, and the longest queue says why it waits."""
    longest = max(queues, key=lambda queue: queue.waiting)
    return QueueView(
        model=longest.model,
        waiting=sum(queue.waiting for queue in queues),
        running=sum(queue.running for queue in queues),
        oldest_age_s=max(queue.oldest_age_s for queue in queues),
        work_s=sum(queue.work_s for queue in queues),
        eta_s=min(queue.eta_s for queue in queues),
        reason=longest.reason,
    )


def reason(state: State, model: str, now: float) -> str:
    """Why requests for `model` wait, in a sentence."""
    own = state.model(model)
    place = state.ledger.places.get(model)
    if state.lost:
        return f"the backend does not work: {state.lost}"
    if place is Place.LOADING:
        return f"{model} is loading, ready in about {_load_left_s(state, model, now):.0f} s"
    if state.swap and state.swap.target == model:
        if state.swap.evicting:
            return f"making room: {_names(state.swap.leaving)} leaving"
        left = max(0.0, state.busy_until(state.swap.leaving, now) - now)
        return f"its turn has come: {_names(state.swap.leaving)} finishing what runs, about {left:.0f} s"
    if place is Place.LOADED and not state.draining(model):
        return f"waiting for a free slot: all {state.thresholds.slots} are taken"
    if place is not None:
        return f"{model} is making room for {state.swap.target if state.swap and state.swap.target else 'others'}"
    if own.retry_at > now:
        return f"loading {model} failed ({own.load_error}): next try in {own.retry_at - now:.0f} s"
    newcomer, leaving = state.standing(model, now), _leaving(state, model, now)
    if leaving is None:
        return f"pinned models leave no room for {model}"
    if state.loading or (state.swap and state.swap.target):
        return f"waiting for {state.loading or (state.swap.target if state.swap else '')} to come in first"
    rivals = [s for s in _candidates(state, now) if s.model != model]
    if rivals and policy.by_urgency([newcomer, *rivals], len(state.models))[0].model != model:
        first = policy.by_urgency(rivals, len(state.models))[0].model
        return f"{first} is more overdue and comes in first"
    return _verdict_sentence(_verdict(state, newcomer, leaving, now), leaving)


def _verdict_sentence(verdict: Verdict, leaving: list[Standing]) -> str:
    names = _names(tuple(s.model for s in leaving if s.busy))
    match verdict.rule:
        case Rule.YOUNG:
            return "just arrived: the batch window is open"
        case Rule.STAY:
            return f"waiting for {names} to have its {verdict.stay_s:.0f} s: swap pays in {verdict.due_in_s:.0f} s"
        case Rule.GATE:
            those = "1 request that was" if verdict.gate == 1 else f"{verdict.gate} requests that were"
            return f"waiting for {those} there when {names} came in"
    return "comes in now"


def _wait_s(state: State, model: str, ahead_s: float, now: float) -> float:
    """Predicted wait behind `ahead_s` seconds of work for the same model."""
    if state.lost:
        return UNKNOWN_S
    slots = state.thresholds.slots
    if state.ledger.is_loaded(model) and not state.draining(model):
        others = sum(state.model(m).queue.work_s for m in state.ledger.loaded() if m != model)
        free_in = [max(0.0, r.ends - now) for r in state.running.values()][:slots]
        free_in += [0.0] * (slots - len(free_in))
        return _shared(free_in, ahead_s + min(others, ahead_s))
    return _ready_in_s(state, model, now) + ahead_s / slots


def _shared(free_in: list[float], work_s: float) -> float:
    """When `work_s` of work is done by slots that become free at these times."""
    free_in.sort()
    for count, (start, end) in enumerate(zip(free_in, [*free_in[1:], float("inf")], strict=True), start=1):
        room = (end - start) * count
        if work_s <= room:
            return start + work_s / count
        work_s -= room
    return free_in[-1]


def _ready_in_s(state: State, model: str, now: float) -> float:
    """Predicted time until a model that is not in, or is leaving, can start requests. Seconds."""
    load_s = state.estimates.load_s(model)
    if state.loading == model:
        return _load_left_s(state, model, now)
    if state.swap and state.swap.target == model:
        return max(0.0, state.busy_until(state.swap.leaving, now) - now) + load_s
    wait_s = max(0.0, state.model(model).retry_at - now)
    if state.loading:
        wait_s += _load_left_s(state, state.loading, now)
    leaving = _leaving(state, model, now)
    if leaving is None:
        return UNKNOWN_S
    newcomer = state.standing(model, now)
    ranked = policy.by_urgency([newcomer, *(s for s in _candidates(state, now) if s.model != model)], len(state.models))
    for rival in ranked[: ranked.index(newcomer)]:
        wait_s += rival.load_s + rival.evict_s + state.model(rival.model).queue.work_s / state.thresholds.slots
    if not leaving:
        return wait_s + load_s
    verdict = _verdict(state, newcomer, leaving, now)
    busy = tuple(s.model for s in leaving if s.busy)
    drain = max(0.0, state.busy_until(busy, now) - now)
    gate_s = sum(_gate_work_s(state, name) for name in busy) / state.thresholds.slots if verdict.gate else 0.0
    return wait_s + max(verdict.due_in_s, gate_s) + drain + policy.swap_s(newcomer, leaving)


def _gate_work_s(state: State, model: str) -> float:
    queue, gate = state.model(model).queue, state.model(model).gate
    return queue.work_s * len(gate) / max(1, len(queue))


def _candidates(state: State, now: float) -> list[Standing]:
    return [
        state.standing(name, now)
        for name, model in state.models.items()
        if len(model.queue) and name not in state.ledger.places
    ]


def _verdict(state: State, newcomer: Standing, leaving: list[Standing], now: float) -> Verdict:
    beside = state.beside(newcomer, [s.model for s in leaving], _candidates(state, now))
    return policy.verdict(newcomer, leaving, state.thresholds, beside)


def _leaving(state: State, model: str, now: float) -> list[Standing] | None:
    """Who would have to leave for `model`, once loads and evictions under way are done; None: pins are in the way."""
    here = [state.standing(name, now) for name in state.ledger.places if name not in state.pinned]
    names = state.ledger.victims(model, policy.by_worth(here))
    return None if names is None else [s for s in here if s.model in names]


def _load_left_s(state: State, model: str, now: float) -> float:
    return max(0.0, state.since.get(model, now) + state.estimates.load_s(model) - now)


def _names(models: tuple[str, ...]) -> str:
    return " and ".join(models) or "nothing"


def _swap_sentence(state: State, now: float) -> str:
    if state.loading:
        return f"loading {state.loading}, {_load_left_s(state, state.loading, now):.0f} s left"
    if not state.swap:
        return ""
    what = "evicting" if state.swap.evicting else "draining"
    return f"{what} {_names(state.swap.leaving)}" + (f" for {state.swap.target}" if state.swap.target else "")


def _slot(state: State, number: int) -> SlotView:
    slot = state.slots[number]
    if not slot.job_id:
        return SlotView(number, "", "", "", "", 0.0, 0.0)
    run = state.running[slot.job_id]
    phase = "cancelling" if run.cancelled else "prefill" if run.prefilled_at is None else "decode"
    since = run.started if run.prefilled_at is None else run.prefilled_at
    job = run.entry.job
    return SlotView(number, job.id, job.agent, job.model, phase, since, run.started)


def _resident(state: State, model: str, place: Place) -> ResidentView:
    spec, measured = state.catalogue.models.get(model), state.ledger.measured.get(model)
    return ResidentView(
        model=model,
        place=place,
        claim_mb=state.ledger.claim_mb(model),
        declared_mb=float(spec.footprint_mb) if spec else 0.0,
        footprint_mb=measured.footprint_mb if measured else None,
        vram_mb=measured.vram_mb if measured else None,
        pinned=model in state.pinned,
        since=state.model(model).loaded_at if place is Place.LOADED else state.since.get(model, 0.0),
    )


def _prospect(state: State, model: str, now: float) -> ProspectView:
    leaving = _leaving(state, model, now)
    return ProspectView(
        model=model,
        claim_mb=state.ledger.claim_mb(model),
        measured=model in state.ledger.measured,
        leaving=None if leaving is None else tuple(standing.model for standing in leaving),
    )


def _queue(state: State, model: str, now: float) -> QueueView:
    queue = state.model(model).queue
    oldest: Entry | None = queue.oldest()
    return QueueView(
        model=model,
        waiting=len(queue),
        running=state.model(model).running,
        oldest_age_s=now - oldest.arrived if oldest else 0.0,
        work_s=queue.work_s,
        eta_s=predicted_wait_s(state, model, now),
        reason=reason(state, model, now) if oldest else "",
    )
