"""What an agent may take: requests a minute, tokens a minute, requests at once. Token buckets; 0 is no limit.

A bucket holds a minute's worth and fills evenly. A request costs one of the first; its tokens, known only when it has
ended, are taken from the second then, which may leave it in debt: the agent waits until that is paid. So an agent can
overdraw by what it has under way, and never by more over time.

Rule: a refusal changes nothing, and says when the same request would be let in. A minute, not a day: a restart that
forgets the buckets then gives nothing away.
Must not know: the queue, the clock (every moment is handed in, in seconds on one monotonic clock).
"""

from dataclasses import dataclass

from optimizer.core.request import AgentProfile

MINUTE_S = 60.0
_ROUNDING = 1e-6  # of a request or token: what waiting exactly the predicted time may be short of


@dataclass(slots=True)
class Bucket:
    """`level` of what may still be taken at the moment `at`; negative is a debt."""

    level: float
    at: float

    def fill(self, limit: int, now: float) -> float:
        """The level now, under a limit that may have changed since."""
        self.level = min(float(limit), self.level + max(0.0, now - self.at) * limit / MINUTE_S)
        self.at = now
        return self.level


@dataclass(frozen=True, slots=True)
class Over:
    """Why a request is not let in, and in how many seconds it would be. None: when one of the agent's own ends."""

    limit: str  # a sentence's end: "60 requests a minute"
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Use:
    """What an agent has taken. None where it has no limit, so nothing is counted."""

    concurrent: int
    requests: float | None  # of this minute's
    tokens: float | None


class Quota:
    """`admit` on the way in; for everything admitted, `leave` once on the way out."""

    def __init__(self) -> None:
        self._requests: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}
        self._inside: dict[str, int] = {}

    def admit(self, agent: AgentProfile, now: float) -> Over | None:
        """Let one request in and return None, or say which limit is reached. The longest wait counts."""
        if 0 < agent.max_concurrent <= self._inside.get(agent.slug, 0):
            return Over(f"{agent.max_concurrent} requests at once", None)
        waits = [
            Over(f"{limit} {what} a minute", (1.0 - level) * MINUTE_S / limit)
            for what, limit, buckets in self._limits(agent)
            if (level := _bucket(buckets, agent.slug, limit, now).fill(limit, now)) < 1.0 - _ROUNDING
        ]
        if waits:
            return max(waits, key=lambda over: over.retry_after_s or 0.0)
        if agent.requests_per_minute:
            self._requests[agent.slug].level -= 1.0
        self._inside[agent.slug] = self._inside.get(agent.slug, 0) + 1
        return None

    def leave(self, agent: AgentProfile, tokens: int, now: float) -> None:
        """One that was let in has ended, however it did, after `tokens` read and written on the node."""
        inside = self._inside.pop(agent.slug) - 1
        if inside:
            self._inside[agent.slug] = inside
        if agent.tokens_per_minute:
            bucket = _bucket(self._tokens, agent.slug, agent.tokens_per_minute, now)
            bucket.fill(agent.tokens_per_minute, now)
            bucket.level -= tokens

    def use(self, agent: AgentProfile, now: float) -> Use:
        """What the agent has taken, for people. More than its limit is a debt."""
        taken = {
            what: limit - _bucket(buckets, agent.slug, limit, now).fill(limit, now)
            for what, limit, buckets in self._limits(agent)
        }
        return Use(self._inside.get(agent.slug, 0), taken.get("requests"), taken.get("tokens"))

    def _limits(self, agent: AgentProfile) -> list[tuple[str, int, dict[str, Bucket]]]:
        """The limits this agent has. One that was lifted is forgotten, and starts full when it is set again."""
        limits = []
        for what, limit, buckets in (
            ("requests", agent.requests_per_minute, self._requests),
            ("tokens", agent.tokens_per_minute, self._tokens),
        ):
            if limit:
                limits.append((what, limit, buckets))
            else:
                buckets.pop(agent.slug, None)
        return limits


def _bucket(buckets: dict[str, Bucket], slug: str, limit: int, now: float) -> Bucket:
    return buckets.setdefault(slug, Bucket(float(limit), now))
