"""What tells a running engine that stored state has changed: one counter, moved by every change.

Rule: the counter moves in the same transaction as the change, so that whoever sees the new number also
sees the new rows. A model of which the engine keeps a copy in memory extends `EngineState`.
"""

from typing import Any

from django.db import models, transaction
from django.db.models import F


class StateVersion(models.Model):
    """One row; `version` grows with every change to an `EngineState` row."""

    version = models.PositiveBigIntegerField(default=0)

    THE_ROW = 1

    @classmethod
    def current(cls) -> int:
        """The counter; 0 before the first change. One small SELECT, cheap enough for every second."""
        return cls.objects.filter(pk=cls.THE_ROW).values_list("version", flat=True).first() or 0

    @classmethod
    def bump(cls) -> None:
        """Move the counter, in the caller's transaction; on Postgres this also queues concurrent changes."""
        if not cls.objects.filter(pk=cls.THE_ROW).update(version=F("version") + 1):
            cls.objects.bulk_create([cls(pk=cls.THE_ROW, version=0)], ignore_conflicts=True)
            cls.objects.filter(pk=cls.THE_ROW).update(version=F("version") + 1)


class EngineStateQuerySet(models.QuerySet):
    """Bulk changes move the counter too."""

    def update(self, **values: Any) -> int:
        with transaction.atomic(using=self.db):
            rows = super().update(**values)
            if rows:
                StateVersion.bump()
        return rows

    update.alters_data = True

    def update_silently(self, **values: Any) -> int:
        """`update` for bookkeeping that the engine does not read (last use, measurements)."""
        return super().update(**values)

    update_silently.alters_data = True

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            result = super().delete()
            StateVersion.bump()
        return result

    delete.alters_data = True
    delete.queryset_only = True

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic(using=self.db):
            rows = super().bulk_create(*args, **kwargs)
            StateVersion.bump()
        return rows


class EngineState(models.Model):
    """Base of the rows that the engine keeps in memory."""

    objects = EngineStateQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            StateVersion.bump()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            result = super().delete(*args, **kwargs)
            StateVersion.bump()
        return result


class SeedStep(models.Model):
    """A part of the seed that has been done; it is never done again, so what an admin deleted stays away."""

    name = models.CharField(max_length=60, primary_key=True)
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name
