"""Threshold revisions: validated, attributed, undoable; defaults hold until someone sets a value."""

import logging

import pytest

from controlplane import stores, thresholds
from controlplane.models import AuditEntry, StateVersion, ThresholdRevision
from optimizer.core.thresholds import ThresholdError, Thresholds

pytestmark = pytest.mark.django_db


def test_without_revisions_the_strategys_values_are_in_force():
    assert thresholds.current() == Thresholds()


def test_a_change_is_stored_with_author_reason_and_both_values():
    before = StateVersion.current()
    after = thresholds.change({"slots": "1", "cache_ttl_s": 5400}, "ann", "less memory")
    assert after == thresholds.current() == Thresholds(slots=1, cache_ttl_s=5400.0)
    revision = ThresholdRevision.objects.get()
    assert revision.changes == {"slots": [2, 1], "cache_ttl_s": [3600.0, 5400.0]}
    assert (revision.author, revision.reason, revision.explicit) == ("ann", "less memory", ["slots", "cache_ttl_s"])
    assert revision.values["gpu_memory_mb"] == 4096
    assert StateVersion.current() > before
    assert AuditEntry.objects.get().action == "change"


@pytest.mark.parametrize(
    ("changes", "reason", "bad"),
    [
        ({"slots": 0}, "x", {"slots"}),
        ({"slots": "many", "nonsense": 1}, "x", {"slots", "nonsense"}),
        ({"cut_opus": 0.1}, "x", {"cut_sonnet"}),
        ({"slots": 1}, "  ", {"reason"}),
    ],
)
def test_a_bad_change_names_every_field_and_stores_nothing(changes, reason, bad):
    with pytest.raises(ThresholdError) as raised:
        thresholds.change(changes, "ann", reason)
    assert set(raised.value.problems) == bad
    assert not ThresholdRevision.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_change_to_what_is_in_force_makes_no_revision():
    thresholds.change({"slots": 2}, "ann", "as it is")
    assert not ThresholdRevision.objects.exists()


def test_a_nodes_defaults_hold_until_someone_sets_the_value():
    stores.node_started("llamacpp", threshold_defaults={"gpu_memory_mb": 1120})
    assert thresholds.current().gpu_memory_mb == 1120
    thresholds.change({"gpu_memory_mb": 4096}, "ann", "a real card")
    assert thresholds.current().gpu_memory_mb == 4096
    assert thresholds.current({"gpu_memory_mb": 640}).gpu_memory_mb == 4096
    assert thresholds.current({"slots": 1}).slots == 1


def test_a_default_is_not_frozen_by_a_change_of_another_threshold():
    stores.node_started("llamacpp", threshold_defaults={"gpu_memory_mb": 1120})
    thresholds.change({"slots": 1}, "ann", "one")
    stores.node_started("ollama")
    assert thresholds.current() == Thresholds(slots=1)


def test_undoing_restores_what_that_revision_changed_and_nothing_else():
    thresholds.change({"slots": 1}, "ann", "one")
    thresholds.change({"slots": 4, "stay": 8.0}, "bob", "four")
    second = thresholds.latest()
    thresholds.change({"temperature": 0.5}, "ann", "calmer")
    after = thresholds.roll_back(second.pk, "eve", "too many")
    assert after == thresholds.current() == Thresholds(slots=1, temperature=0.5)
    undo = thresholds.latest()
    assert (undo.author, undo.reverted_from, undo.explicit) == ("eve", second, ["slots", "temperature"])


def test_undoing_the_first_change_of_a_value_makes_it_follow_its_default_again():
    thresholds.change({"gpu_memory_mb": 8192}, "ann", "new card")
    thresholds.roll_back(thresholds.latest().pk, "ann")
    stores.node_started("llamacpp", threshold_defaults={"gpu_memory_mb": 1120})
    assert thresholds.current().gpu_memory_mb == 1120
    assert thresholds.latest().reason.startswith("undo revision")


def test_undoing_twice_changes_nothing_more():
    thresholds.change({"slots": 1}, "ann", "one")
    revision = thresholds.latest().pk
    thresholds.roll_back(revision, "ann")
    count = ThresholdRevision.objects.count()
    thresholds.roll_back(revision, "ann")
    assert ThresholdRevision.objects.count() == count


def test_an_undo_that_does_not_fit_later_changes_is_refused():
    thresholds.change({"cut_opus": 0.9}, "ann", "higher")
    first = thresholds.latest().pk
    thresholds.change({"cut_sonnet": 0.85}, "ann", "higher too")
    with pytest.raises(ThresholdError, match="cut_sonnet"):
        thresholds.roll_back(first, "ann")
    assert thresholds.current().cut_opus == 0.9


def test_values_that_a_newer_version_no_longer_allows_are_left_out_and_logged(caplog):
    ThresholdRevision.objects.create(
        values={"slots": 99, "stay": 8.0, "removed": 1}, explicit=["slots", "stay", "removed"], author="a", reason="r"
    )
    with caplog.at_level(logging.WARNING):
        assert thresholds.current() == Thresholds(stay=8.0)
    assert "slots" in caplog.text
