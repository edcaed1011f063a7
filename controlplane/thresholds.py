"""The store of threshold revisions: what is in force, and every change with author, time and reason.

Rule: values are validated by `optimizer.core.thresholds.changed`, nowhere else. A threshold nobody has set follows
its default: the node's own (`Node.threshold_defaults`, e.g. the embedded engine's memory budget) or the strategy's.
Must not know: forms, HTTP. Synchronous: async code calls it in a thread.
"""

import logging
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from controlplane import audit, queries
from controlplane.models import StateVersion, ThresholdRevision
from optimizer.core.thresholds import ThresholdError, Thresholds, as_dict, changed

log = logging.getLogger(__name__)


def current(overrides: Mapping[str, Any] | None = None) -> Thresholds:
    """The thresholds in force. `overrides` are defaults that replace the node's; set values win over both."""
    return _in_force(_defaults(overrides), _explicit(latest()))


def latest() -> ThresholdRevision | None:
    """The last revision; None before the first change."""
    return ThresholdRevision.objects.order_by("-pk").first()


def history() -> QuerySet[ThresholdRevision]:
    """All revisions, latest first."""
    return ThresholdRevision.objects.order_by("-pk")


def change(changes: Mapping[str, Any], author: str, reason: str) -> Thresholds:
    """Set some thresholds; returns what is in force then.

    Raises ThresholdError, naming every bad field, and stores nothing. Values that are in force already make no
    revision.
    """
    if not reason.strip():
        raise ThresholdError({"reason": "say why"})
    with transaction.atomic():
        StateVersion.bump()  # first: two changes at once happen one after the other
        before = current()
        after = changed(before, changes)
        moved = {name: value for name, value in as_dict(after).items() if value != getattr(before, name)}
        if not moved:
            return before
        _store(before, after, {*_explicit(latest()), *moved}, author, reason)
    return after


def roll_back(revision_id: int, author: str, reason: str = "") -> Thresholds:
    """Undo one revision: what it changed gets its earlier value back, as a new revision; later changes of other
    thresholds stay. Raises ThresholdError when the values no longer fit together, DoesNotExist for an unknown id.
    """
    with transaction.atomic():
        StateVersion.bump()
        undone = ThresholdRevision.objects.get(pk=revision_id)
        earlier = _explicit(ThresholdRevision.objects.filter(pk__lt=revision_id).order_by("-pk").first())
        now_explicit = _explicit(latest())
        for name in undone.changes:
            now_explicit.pop(name, None)
            if name in earlier:
                now_explicit[name] = earlier[name]
        before, after = current(), changed(_defaults(None), now_explicit)
        if after == before:
            return before
        _store(before, after, set(now_explicit), author, reason.strip() or f"undo revision {revision_id}", undone)
    return after


def _store(
    before: Thresholds,
    after: Thresholds,
    explicit: set[str],
    author: str,
    reason: str,
    undone: ThresholdRevision | None = None,
) -> None:
    old, new = as_dict(before), as_dict(after)
    changes = {name: [old[name], new[name]] for name in new if new[name] != old[name]}
    revision = ThresholdRevision.objects.create(
        changes=changes,
        values=new,
        explicit=[name for name in new if name in explicit],
        author=author[:150],
        reason=reason.strip()[:500],
        reverted_from=undone,
    )
    action = "roll_back" if undone else "change"
    audit.record(author, action, "thresholds", revision=revision.pk, changes=changes, reason=reason[:500])


def _defaults(overrides: Mapping[str, Any] | None) -> Thresholds:
    if overrides is None:
        node = queries.active_node()
        overrides = node.threshold_defaults if node else {}
    return _in_force(Thresholds(), overrides)


def _explicit(revision: ThresholdRevision | None) -> dict[str, Any]:
    """The values that people have set, by name."""
    if revision is None:
        return {}
    return {name: revision.values[name] for name in revision.explicit if name in revision.values}


def _in_force(base: Thresholds, values: Mapping[str, Any]) -> Thresholds:
    """`base` with stored `values`. Those that a newer version no longer knows or allows are left out, and logged."""
    try:
        return changed(base, values)
    except ThresholdError as error:
        log.warning("stored thresholds left out: %s", error)
        kept = {name: value for name, value in values.items() if name not in error.problems}
    try:
        return changed(base, kept)
    except ThresholdError as error:
        log.error("stored thresholds do not fit together, defaults are in force: %s", error)
        return base
