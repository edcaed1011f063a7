"""Bearer keys of agents: `ng_<prefix>_<secret>`, 256 random bits, shown once.

Rule: the prefix finds the row, the digest proves the secret. Nothing but the caller of `issue` sees the secret.
Must not know: HTTP headers.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane import audit
from controlplane.models import Agent, AgentKey

BRAND = "ng"
_PREFIX_BYTES, _SECRET_BYTES = 4, 32
_LONGEST_TOKEN = 200  # characters; longer input is not worth hashing


class Scope(StrEnum):
    """What a key may do."""

    REQUESTS = "requests"  # send requests as its agent: /v1, /api, /control/v1/tasks
    ADMIN = "admin"  # manage agents and settings: the rest of /control/v1


def issue(
    agent: Agent,
    name: str = "",
    expires_at: datetime | None = None,
    *,
    scopes: Iterable[Scope] = (Scope.REQUESTS,),
    actor: str = audit.SYSTEM,
) -> str:
    """Make a key and return its token: the only time it can be seen."""
    secret = secrets.token_hex(_SECRET_BYTES)
    granted = sorted({Scope(scope).value for scope in scopes})
    with transaction.atomic():
        key = _stored(agent, name[:80], expires_at, granted, digest(secret))
        audit.record(actor, "issue_key", f"agent {agent.slug}", prefix=key.prefix, name=key.name, scopes=granted)
    return f"{BRAND}_{key.prefix}_{secret}"


def revoke(key: AgentKey, *, actor: str) -> bool:
    """End a key at once; False when it had been revoked before."""
    with transaction.atomic():
        ended = AgentKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=timezone.now())
        if ended:
            audit.record(actor, "revoke_key", f"agent {key.agent.slug}", prefix=key.prefix, name=key.name)
    return bool(ended)


def rotate(old: AgentKey, overlap: timedelta = timedelta(0), *, actor: str) -> str:
    """A new key like `old`, which goes on working for `overlap` and no longer; returns the new token.

    A key that was made to end lives as long again. The old one never lives longer than it would have.
    """
    now = timezone.now()
    lifetime = old.expires_at - old.created_at if old.expires_at else None
    with transaction.atomic():
        token = issue(
            old.agent,
            old.name,
            now + lifetime if lifetime else None,
            scopes=map(Scope, old.scopes),
            actor=actor,
        )
        if overlap <= timedelta(0):
            revoke(old, actor=actor)
        elif old.expires_at is None or old.expires_at > now + overlap:
            old.expires_at = now + overlap
            old.save(update_fields=["expires_at"])
            until = old.expires_at.isoformat(timespec="seconds")
            audit.record(actor, "end_key", f"agent {old.agent.slug}", prefix=old.prefix, name=old.name, until=until)
    return token


def digest(secret: str) -> str:
    """SHA-256 of an ASCII secret, hex."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def parts(token: str | bytes) -> tuple[str, str] | None:
    """(prefix, secret) of a token; None for anything that cannot be one, whatever bytes it is made of."""
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        return None
    text = token.decode("ascii") if isinstance(token, bytes) else token
    brand, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return (prefix, secret) if brand == BRAND and prefix and secret else None


def _stored(agent: Agent, name: str, expires_at: datetime | None, scopes: list[str], digest_: str) -> AgentKey:
    while True:
        try:
            with transaction.atomic():
                return AgentKey.objects.create(
                    agent=agent,
                    name=name,
                    prefix=secrets.token_hex(_PREFIX_BYTES),
                    digest=digest_,
                    scopes=scopes,
                    expires_at=expires_at,
                )
        except IntegrityError:
            if not Agent.objects.filter(pk=agent.pk).exists():
                raise
            # the prefix is taken (1 in 4 thousand millions per key): draw again
