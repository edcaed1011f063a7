"""What the hot path knows, in memory: agents, keys, thresholds, catalogue. One snapshot, replaced as a whole.

Rule: a request never reads the database. `load` is the only place that does; the engine polls
`queries.state_version` once a second in a thread and loads again when it has moved.
Must not know: HTTP, the engine.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane import keys, queries, thresholds
from optimizer.core.request import AgentProfile
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as the hot path needs it. `expires_at` in seconds since the epoch."""

    prefix: str
    digest: str
    agent: str  # slug
    scopes: frozenset[str]
    expires_at: float | None


_NOBODY = KeyEntry("", keys.digest(""), "", frozenset(), None)  # compared against, so a miss costs what a hit costs


@dataclass(frozen=True, slots=True)
class Tables:
    """A snapshot; `version` is the state version it was read at (at least)."""

    version: int
    agents: Mapping[str, AgentProfile]
    keys: Mapping[str, KeyEntry]  # by prefix
    thresholds: Thresholds
    catalogue: Catalogue
    invalidated: frozenset[str]  # keys of cached answers to drop
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # thresholds of single nodes, by name

    @classmethod
    def load(cls, backend: str, overrides: Mapping[str, Any] | None = None) -> "Tables":
        """Read everything (synchronous ORM). Raises ConfigurationError when a tier has no model."""
        version = queries.state_version()  # first: a change during the reading is seen at the next poll
        in_force = thresholds.current(overrides)
        return cls(
            version=version,
            agents=queries.agent_profiles(),
            keys={
                key.prefix: KeyEntry(
                    prefix=key.prefix,
                    digest=key.digest,
                    agent=key.agent.slug,
                    scopes=frozenset(key.scopes),
                    expires_at=key.expires_at.timestamp() if key.expires_at else None,
                )
                for key in queries.live_keys()
            },
            thresholds=in_force,
            catalogue=queries.catalogue(backend, in_force),
            invalidated=queries.invalidated_answers(),
            nodes=queries.own_thresholds(),
        )

    def key_for(self, token: str | bytes, now: float) -> KeyEntry | None:
        """The live key that a token proves, else None. `now` in seconds since the epoch.

        Never raises, whatever the token is made of; the digests are compared in constant time.
        """
        parts = keys.parts(token)
        if parts is None:
            return None
        prefix, secret = parts
        entry = self.keys.get(prefix, _NOBODY)
        proven = hmac.compare_digest(entry.digest, keys.digest(secret))
        if not proven or entry is _NOBODY or (entry.expires_at is not None and entry.expires_at <= now):
            return None
        return entry

    def agent_for(
        self, token: str | bytes, now: float, used: Callable[[str, float], None] = lambda prefix, at: None
    ) -> AgentProfile | None:
        """The agent that a token speaks for, else None; `used` is told the prefix of a key that was good, and `now`."""
        entry = self.key_for(token, now)
        if entry is None:
            return None
        used(entry.prefix, now)
        return self.agents.get(entry.agent)
