"""Deciding on suggestions: apply one as a threshold revision, dismiss it, or roll it back.

Rule: a suggestion is decided once; two people at once decide it once. Must not know: how it was found.
"""

from typing import Any

from django.db import transaction
from django.utils import timezone

from controlplane import audit, thresholds
from controlplane.models import Suggestion
from optimizer.core.errors import NarrowgaugeError

_State = Suggestion.State


class NotThere(NarrowgaugeError):
    """No suggestion has this number; the text says so."""


class Undecidable(NarrowgaugeError):
    """It is not in the state that the decision needs, or has nothing to apply; the text says which."""


def decide(number: int, decision: str, actor: str) -> dict[str, Any]:
    """Carry out one of `DECISIONS`; returns the suggestion as it is then.

    Raises NotThere, Undecidable, and ThresholdError when its values are no longer allowed.
    """
    suggestion = Suggestion.objects.filter(pk=number).first()
    if suggestion is None:
        raise NotThere(f"no suggestion {number}")
    if decision == "apply" and not suggestion.change:
        raise Undecidable(f"suggestion {number} is advice, there is nothing to apply: dismiss it when it is dealt with")
    if not DECISIONS[decision](suggestion, actor):
        suggestion.refresh_from_db()
        raise Undecidable(f"suggestion {number} is {suggestion.get_state_display()}: cannot {decision} it")
    suggestion.refresh_from_db()
    return as_data(suggestion)


def listed(most: int, *, decided: bool = False) -> list[dict[str, Any]]:
    """Open ones, latest first; with `decided` all of them."""
    found = Suggestion.objects.all() if decided else Suggestion.objects.filter(state=_State.OPEN)
    return [as_data(suggestion) for suggestion in found[:most]]


def as_data(suggestion: Suggestion) -> dict[str, Any]:
    """One suggestion as JSON."""
    return {
        "id": suggestion.pk,
        "rule": suggestion.rule,
        "severity": suggestion.severity,
        "state": suggestion.state,
        "title": suggestion.title,
        "body": suggestion.body,
        "change": suggestion.change,
        "evidence": suggestion.evidence,
        "created_at": suggestion.created_at.isoformat(),
        "decided_at": suggestion.decided_at.isoformat() if suggestion.decided_at else None,
        "actor": suggestion.actor,
    }


def apply(suggestion: Suggestion, actor: str, reason: str = "") -> bool:
    """Put the change into force; False when it was decided already. Raises ThresholdError, and it stays open."""
    with transaction.atomic():
        if not _move(suggestion, _State.OPEN, _State.APPLIED, actor):
            return False
        before = thresholds.latest()
        thresholds.change(suggestion.change, actor, reason or f"suggestion: {suggestion.title}")
        after = thresholds.latest()
        if after != before:
            Suggestion.objects.filter(pk=suggestion.pk).update(revision=after)
    return True


def dismiss(suggestion: Suggestion, actor: str) -> bool:
    """Put it aside; False when it was decided already."""
    with transaction.atomic():
        return _move(suggestion, _State.OPEN, _State.DISMISSED, actor)


def roll_back(suggestion: Suggestion, actor: str) -> bool:
    """Undo an applied one; False when it is not applied. Raises ThresholdError, and it stays applied."""
    with transaction.atomic():
        if not _move(suggestion, _State.APPLIED, _State.ROLLED_BACK, actor):
            return False
        revision = Suggestion.objects.get(pk=suggestion.pk).revision_id
        if revision is not None:
            thresholds.roll_back(revision, actor, f"roll back suggestion: {suggestion.title}")
    return True


def _move(suggestion: Suggestion, start: str, end: str, actor: str) -> bool:
    moved = Suggestion.objects.filter(pk=suggestion.pk, state=start).update(
        state=end, actor=actor[:150], decided_at=timezone.now()
    )
    if moved:
        audit.record(actor, str(end), f"suggestion {suggestion.pk}", rule=suggestion.rule, title=suggestion.title)
    return bool(moved)


DECISIONS = {"apply": apply, "dismiss": dismiss, "roll-back": roll_back}
