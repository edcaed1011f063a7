"""Claims on chores: whatever runs in the background is done by one process at a time, whoever starts it.

Rule: the database decides, in one conditional UPDATE, so that an engine's own loops, Celery and a person's command
never do the same thing at once. A claim whose process died is free again at once on its own machine, elsewhere when
its lease ends; then the chore is due, so nothing is lost. Synchronous; called in a thread or a process of its own.
Must not know: what a chore does.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db.models import Q
from django.utils import timezone

from controlplane import storable
from controlplane.models import Chore
from optimizer.core.errors import NarrowgaugeError

LEASE_S = 300.0  # far longer than any chore goes without saying how far it is
EARLY = 0.9  # of a period: schedules and clocks jitter, and a chore that is due a moment later is done now
TOLD_EVERY_S = 1.0


class ClaimLost(NarrowgaugeError):
    """This process was taken for dead and another one has the chore; what it found is not to be used."""


class Claim:
    """This process's right to do a chore, until `end`."""

    def __init__(self, name: str, owner: str) -> None:
        self.name, self._owner = name, owner
        self._told = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """Say how far it is, which renews the lease; at most once a second. Raises ClaimLost."""
        if time.monotonic() - self._told >= TOLD_EVERY_S:
            self._told = time.monotonic()
            until = timezone.now() + timedelta(seconds=LEASE_S)
            self._note(done=done / total if total else 0.0, lease_until=until)

    def end(self, said: str, result: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """Give the chore back with what is to be said of it. Raises ClaimLost."""
        found = {} if result is None else {"result": storable.json(result)}
        self._note(
            owner="",
            lease_until=None,
            done=1.0,
            ended_at=timezone.now(),
            failed=failed,
            said=storable.text(said, 500),
            **found,
        )

    def _note(self, **values: Any) -> None:
        if not Chore.objects.filter(pk=self.name, owner=self._owner).update(**values):
            raise ClaimLost(f"another process does '{self.name}' now")


def take(name: str, every_s: float = 0.0) -> Claim | None:
    """Claim a chore; None when somebody does it, or when it was begun less than `every_s` ago."""
    Chore.objects.bulk_create([Chore(name=name)], ignore_conflicts=True)
    row, now, owner = Chore.objects.get(pk=name), timezone.now(), f"{_me()}:{uuid4().hex[:8]}"
    claimable = _due(now, every_s) | Q(lease_until__lt=now)
    if _died(row.owner):
        claimable |= Q(owner=row.owner)
    until = now + timedelta(seconds=LEASE_S)
    taken = Chore.objects.filter(claimable, pk=name).update(owner=owner, began_at=now, lease_until=until, done=0.0)
    return Claim(name, owner) if taken else None


def is_due(name: str, every_s: float) -> bool:
    """Whether `take` would succeed now: a cheap look before a process is started for it."""
    row = Chore.objects.filter(pk=name).first()
    if row is None or _died(row.owner):
        return True
    now = timezone.now()
    return Chore.objects.filter(_due(now, every_s) | Q(lease_until__lt=now), pk=name).exists()


def is_held(name: str) -> bool:
    """Whether somebody does it now."""
    row = Chore.objects.filter(pk=name).first()
    return row is not None and bool(row.owner) and not _died(row.owner) and row.lease_until >= timezone.now()


@contextmanager
def held(claim: Claim) -> Iterator[Claim]:
    """Within it the chore is done; an exception ends it as failed and goes on."""
    try:
        yield claim
    except ClaimLost:
        raise
    except Exception as error:
        claim.end(f"failed: {error}", failed=True)
        raise


def _due(now: datetime, every_s: float) -> Q:
    return Q(owner="") & (Q(began_at=None) | Q(began_at__lte=now - timedelta(seconds=EARLY * every_s)))


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _died(owner: str) -> bool:
    """Whether the owner ran on this machine and is no more."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process: alive
    return False
