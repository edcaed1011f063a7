"""Who gets a free slot, and which one.

Rule: work-conserving: a slot stays free only when nobody waits who may start. Reads the state, changes nothing.
Must not know: when models swap.
"""

from optimizer.core.job import Job
from optimizer.core.queues import Entry
from optimizer.core.state import State

HEAD_START_S = 30.0  # of slot time, that each priority class has over the next between loaded models


def next_entry(st: State, now: float) -> Entry | None:
    """Who starts next, over all loaded models.

    Loaded models share the slots by time: the one that has had least goes first, and a higher priority counts
    as having had HEAD_START_S less. Within the model its queue decides. On a model that is to leave, only a
    request that is predicted to end before the drain does.
    """
    best: Entry | None = None
    best_key = (0.0, 0.0)
    for name in st.ledger.loaded():
        model = st.model(name)
        if not model.queue:
            continue
        if st.swap and name in st.swap.leaving:
            entry = model.queue.fitting(st.swap.drained_by - now)
        else:
            entry = model.queue.next(st.thresholds.longest_waiting_every)
        if entry:
            key = (model.served_s + HEAD_START_S * entry.rank, entry.cost_s)
            if best is None or key < best_key:
                best, best_key = entry, key
    return best


def slot_for(st: State, job: Job) -> int:
    """The free slot whose KV cache fits best: the same prefix, else nobody's, else the least recent."""
    slots = st.slots

    def coldness(number: int) -> tuple[bool, bool, float]:
        slot = slots[number]
        warm = bool(job.prefix) and (slot.model, slot.prefix) == (job.model, job.prefix)
        return not warm, bool(slot.prefix), slot.used_at

    return min((number for number, slot in enumerate(slots) if not slot.job_id), key=coldness)
