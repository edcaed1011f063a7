"""Attempts to sign in with a password, so that nobody can try many.

Rule: an attempt is written before the password is looked at, and forgotten when it was right: so tries that are made
at the same time count too. Neither the name nor the address is kept, only a digest of each.
"""

import hashlib
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q

WINDOW = timedelta(minutes=15)
MOST_PER_NAME = 5  # wrong passwords for one name from one address, within the window
MOST_PER_ADDRESS = 30  # for any name: people behind one gateway share an address


class SignInAttempt(models.Model):
    """One attempt that has not succeeded (yet)."""

    account = models.CharField(max_length=32, db_index=True)  # digest of name and address
    address = models.CharField(max_length=32, db_index=True)  # digest
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"attempt {self.pk}"

    @classmethod
    def begin(cls, name: str, address: str, now: datetime) -> float:
        """Note an attempt. 0 when the password may be looked at, else the seconds until the next one may be."""
        # Those from the future were made before the clock was set back: they must not lock anybody out for years.
        cls.objects.filter(Q(at__lt=now - WINDOW) | Q(at__gt=now + WINDOW)).delete()
        account, place = _digest(name.casefold(), address), _digest(address)
        attempt = cls.objects.create(account=account, address=place, at=now)
        wait_s = max(
            _wait_s(cls.objects.filter(account=account), MOST_PER_NAME, now),
            _wait_s(cls.objects.filter(address=place), MOST_PER_ADDRESS, now),
        )
        if wait_s:
            attempt.delete()  # a refused attempt does not make the wait longer
        return wait_s

    @classmethod
    def succeeded(cls, name: str, address: str) -> None:
        """Forget the attempts of a name from an address: the password was right."""
        cls.objects.filter(account=_digest(name.casefold(), address)).delete()


def _wait_s(attempts: models.QuerySet[SignInAttempt], most: int, now: datetime) -> float:
    """Seconds until fewer than `most` attempts are within the window, the one being made left out."""
    times = list(attempts.order_by("-at").values_list("at", flat=True)[: most + 1])
    return max(1.0, (times[-1] + WINDOW - now).total_seconds()) if len(times) > most else 0.0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()[:32]
