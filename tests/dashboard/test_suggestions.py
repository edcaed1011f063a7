"""The overview's suggestions, and its charts' history: who may see and decide, and what becomes of it."""

import pytest
from django.core.cache import cache

from controlplane import thresholds
from controlplane.models import AuditEntry, Suggestion


def suggested(**fields) -> Suggestion:
    fields = {"rule": "tune-stay", "severity": "medium", "title": "stay 15 to 30", "change": {"stay": 30.0}, **fields}
    return Suggestion.objects.create(**fields)


@pytest.fixture
def open_one(service) -> Suggestion:
    return suggested()


def test_the_overview_shows_the_most_severe_first_with_what_it_would_change(sign_in, open_one):
    suggested(rule="backend-lost", severity="high", title="The backend died", change={}, body="Look at its log.")
    text = sign_in("operator").get("/").content.decode()
    assert text.index("The backend died") < text.index("stay 15 to 30")
    assert 'href="/replay/?stay=30"' in text and "Put stay = 30 into force now?" in text
    assert text.count(">Apply<") == 1, "advice has nothing to apply"
    assert text.count(">Dismiss<") == 2


def test_nothing_to_suggest_is_said(sign_in):
    assert "Nothing to suggest" in sign_in("viewer").get("/suggestions").content.decode()


def test_applying_puts_it_into_force_at_once_and_it_can_be_rolled_back(sign_in, service, open_one):
    client = sign_in("operator")
    page = client.post(f"/suggestions/{open_one.pk}/apply", follow=True).content.decode()
    assert "In force: stay 15 to 30." in page and ">Roll back<" in page
    assert thresholds.current().stay == 30.0 and service.refreshed == 1
    client.post(f"/suggestions/{open_one.pk}/roll-back")
    assert thresholds.current().stay == 15.0 and service.refreshed == 2
    decided = AuditEntry.objects.filter(target=f"suggestion {open_one.pk}").order_by("pk")
    assert [(entry.actor, entry.action) for entry in decided] == [
        ("a-operator", "applied"),
        ("a-operator", "rolled_back"),
    ]


def test_dismissing_changes_nothing_and_is_audited(sign_in, open_one):
    client = sign_in("operator")
    assert (
        "Dismissed: stay 15 to 30." in client.post(f"/suggestions/{open_one.pk}/dismiss", follow=True).content.decode()
    )
    assert thresholds.latest() is None and AuditEntry.objects.get().action == "dismissed"
    again = client.post(f"/suggestions/{open_one.pk}/apply", follow=True).content.decode()
    assert "Nothing was done" in again and thresholds.latest() is None, "it is decided once"


def test_a_change_that_is_no_longer_allowed_says_so_and_stays_open(sign_in, service):
    bad = suggested(change={"stay": -1.0})
    assert "must be from 0" in sign_in("operator").post(f"/suggestions/{bad.pk}/apply", follow=True).content.decode()
    assert Suggestion.objects.get().state == "open"


def test_a_viewer_reads_them_and_decides_nothing(sign_in, open_one):
    client = sign_in("viewer")
    text = client.get("/").content.decode()
    assert "stay 15 to 30" in text and ">Apply<" not in text and ">Dismiss<" not in text
    for decision in ("apply", "dismiss", "roll-back"):
        assert client.post(f"/suggestions/{open_one.pk}/{decision}").status_code == 403
    assert Suggestion.objects.get().state == "open"


def test_what_is_not_a_decision_is_not_found(sign_in, open_one):
    client = sign_in("operator")
    assert client.post(f"/suggestions/{open_one.pk}/explode").status_code == 404
    assert client.get(f"/suggestions/{open_one.pk}/apply").status_code == 405
    assert "no suggestion 999" in client.post("/suggestions/999/apply", follow=True).content.decode()


def test_the_charts_history_is_for_those_who_may_look(sign_in, client):
    cache.clear()
    assert client.get("/series?range=1h").status_code == 302
    assert sign_in("").get("/series?range=1h").status_code == 403
    viewer = sign_in("viewer")
    assert len(viewer.get("/series?range=24h").json()["points"]) >= 96
    assert viewer.get("/series?range=1y").status_code == viewer.get("/series").status_code == 400
