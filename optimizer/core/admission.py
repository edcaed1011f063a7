"""Who is let in: limits, pauses and deadlines, each refusal with the time to come back.

Rule: refuse early what could not be served in time; `retry_after_s` is the predicted time until the same
request would be admitted. Must not know: the order of the queue, or how a refusal is worded to the caller.
"""

from optimizer.core.commands import Reject, RejectReason
from optimizer.core.forecast import drain_s, predicted_wait_s
from optimizer.core.job import Job
from optimizer.core.state import State

PAUSED_RETRY_S = 30.0  # nobody knows when an operator resumes
KEPT_FREE = 0.5  # share of the queue's places that may stand empty for promises: slots never do
SOONEST_RETRY_S = 1.0  # Retry-After is whole seconds on the wire


def refusal(state: State, job: Job, now: float, elsewhere: int = 0) -> Reject | None:
    """Why `job` may not join the queue, or None. The agent's own limits come before everybody's.

    `elsewhere` counts what its agent has waiting on other nodes.
    """
    if state.intake_paused or state.drained:
        return Reject(job.id, RejectReason.INTAKE_PAUSED, max(PAUSED_RETRY_S, drain_s(state, now)))
    if job.agent in state.paused_agents:
        return Reject(job.id, RejectReason.AGENT_PAUSED, PAUSED_RETRY_S)
    if not state.ledger.fits([*sorted(state.pinned - {job.model}), job.model]):
        return Reject(job.id, RejectReason.NEVER_FITS, PAUSED_RETRY_S)
    limit = job.max_waiting or state.thresholds.max_waiting_per_agent
    if state.waiting_of_agent.get(job.agent, 0) + elsewhere >= limit:
        return Reject(job.id, RejectReason.AGENT_LIMIT, max(SOONEST_RETRY_S, drain_s(state, now) / limit))
    full_s = _full_s(state, job.agent, now)
    if full_s is not None:
        return Reject(job.id, RejectReason.SYSTEM_FULL, max(SOONEST_RETRY_S, full_s))
    if job.deadline is not None:
        wait_s = predicted_wait_s(state, job.model, now)
        finish_s = wait_s + state.estimates.run_s(job.model, job.prompt_tokens, job.expected_tokens)
        if now + finish_s > job.deadline:
            late_s = now + finish_s - job.deadline
            return Reject(job.id, RejectReason.DEADLINE, max(SOONEST_RETRY_S, late_s), predicted_s=finish_s)
    return None


def _full_s(state: State, agent: str, now: float) -> float | None:
    """In how many seconds there will be a place in the queue for this agent; None: now.

    Places are promised in turn: the n-th one refused is told when n places will be free. Somebody new is let in where
    that breaks no promise, neither of those whose time has come nor of the last one.
    """
    promises, free = state.promises, state.thresholds.max_waiting - len(state.entries)
    if free > 0 and (not promises or free > KEPT_FREE * state.thresholds.max_waiting):
        return None
    promises.advance(now)
    place_s = promises.place_s(drain_s(state, now) / len(state.entries), now) if state.entries else 0.0
    if promises.due(agent):
        return None if free > 0 else place_s * promises.expected_now
    spare = free - 1 - promises.expected
    if free > promises.expected_now and (not place_s or spare + (promises.last_due - now) / place_s >= 0):
        return None
    return -spare * place_s
