"""What others may ask of a scheduler: its picture, its predictions, what waits.

Rule: reads the state, changes nothing. Must not know: events or commands.
"""

from collections.abc import Iterable

from optimizer.core import forecast
from optimizer.core.job import Job
from optimizer.core.placement import Offer
from optimizer.core.queues import Entry
from optimizer.core.state import State


class Asking:
    """The reading half of a scheduler."""

    def __init__(self, state: State) -> None:
        self._state = state

    def snapshot(self, now: float) -> forecast.View:
        """Everything a screen shows."""
        return forecast.snapshot(self._state, now)

    def position(self, job_id: str, now: float) -> tuple[int, float, str]:
        """(position from 1, predicted seconds to the start, reason); position 0 = running. KeyError: not here."""
        return forecast.position(self._state, job_id, now)

    def ends_in_s(self, job_id: str, now: float) -> float | None:
        """Predicted seconds until a request has ended; None for one that is not here."""
        return forecast.ends_in_s(self._state, job_id, now)

    def predicted_wait_s(self, model: str, now: float) -> float:
        """Predicted wait of a request for `model` that arrived now, loads and swaps included. Seconds."""
        return forecast.predicted_wait_s(self._state, model, now)

    def offer(self, node: str, job: Job, now: float) -> Offer:
        """What this node would do with a request, for placement. Its model must be in the catalogue."""
        return forecast.offer(self._state, node, job, now)

    def serves(self, model: str) -> bool:
        return model in self._state.catalogue.models

    def learn_from(self, others: Iterable["Asking"]) -> None:
        """What other nodes measure holds here too, until it is measured here."""
        self._state.estimates.peers = [other._state.estimates for other in others]

    def expects(self, agent: str) -> bool:
        """Whether a client of `agent` was refused here and told to come back about now."""
        return self._state.promises.due(agent)

    def holds(self, job_id: str) -> bool:
        """Whether a request waits or runs here."""
        return job_id in self._state.entries or job_id in self._state.running

    @property
    def usable(self) -> bool:
        """Neither lost nor drained."""
        return not self._state.lost and not self._state.drained

    @property
    def idle(self) -> bool:
        """A slot is free, and nobody waits and nothing moves that could fill it."""
        st = self._state
        return len(st.running) < st.thresholds.slots and not st.entries and not st.loading and not st.swap

    def entries(self) -> list[Entry]:
        """Every waiting request as the queue has it, in order of arrival. O(waiting log waiting)."""
        return sorted(self._state.entries.values(), key=lambda entry: entry.seq)

    def heads(self) -> list[Entry]:
        """Who starts next of each model that somebody waits for."""
        return [head for model in self._state.models.values() if (head := model.queue.first())]

    def holding(self) -> list[str]:
        """The ids of everything that waits or runs here."""
        return [*self._state.entries, *self._state.running]

    def waiting_of(self, agent: str) -> int:
        """How many requests of an agent wait here."""
        return self._state.waiting_of_agent.get(agent, 0)

    def waiting(self) -> list[tuple[Job, float]]:
        """Every waiting job with the time it arrived. O(waiting)."""
        return [(entry.job, entry.arrived) for entry in self._state.entries.values()]

    def waiting_of_agents(self) -> dict[str, int]:
        """How many requests each agent has waiting; agents without are left out."""
        return dict(self._state.waiting_of_agent)

    def residents(self) -> tuple[str, ...]:
        """Models that are loaded and not on their way out."""
        return tuple(self._state.ledger.loaded())

    def run_s(self, model: str, prompt_tokens: int, output_tokens: int) -> float:
        """Predicted time of one run on `model`, seconds."""
        return self._state.estimates.run_s(model, prompt_tokens, output_tokens)

    def invariants(self) -> None:
        """Raise AssertionError unless every promise holds."""
        self._state.invariants()
