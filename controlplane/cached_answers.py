"""Taking cached answers out of use, on a person's word.

Rule: the row stays, marked, until the engine has read the mark (`Tables.invalidated`) and let go of its copy.
"""

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from controlplane import audit
from controlplane.models import CachedAnswer, StateVersion


def invalidate(answers: QuerySet[CachedAnswer], *, actor: str) -> int:
    """Answers that are not given again, by a running engine neither; returns how many."""
    with transaction.atomic():
        count = answers.filter(invalidated_at__isnull=True).update(invalidated_at=timezone.now())
        if count:
            StateVersion.bump()
            audit.record(actor, "invalidate", "cached answers", count=count)
    return count
