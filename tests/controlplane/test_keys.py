"""Keys: shown once, stored as a digest, parsed without trust."""

from datetime import timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from controlplane import keys
from controlplane.models import AgentKey, AuditEntry
from controlplane.tables import Tables


@pytest.mark.django_db
def test_a_key_is_stored_as_the_digest_of_its_secret(agent):
    token = keys.issue(agent, "laptop", actor="ann")
    brand, prefix, secret = token.split("_")
    key = AgentKey.objects.get()
    assert (brand, key.prefix, key.digest, key.scopes) == ("ng", prefix, keys.digest(secret), ["requests"])
    assert len(secret) == 64  # 256 bits, hex
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action) == ("ann", "issue_key")
    assert secret not in str(entry.detail)
    assert secret not in str(vars(key))


@pytest.mark.django_db
def test_keys_are_live_until_they_expire_or_are_revoked(agent):
    now = timezone.now()
    keys.issue(agent, expires_at=now + timedelta(days=1))
    key = AgentKey.objects.get()
    assert key.state(now) == "live"
    assert key.state(now + timedelta(days=1)) == "expired"
    assert keys.revoke(key, actor="ann")
    assert not keys.revoke(key, actor="ann")
    key.refresh_from_db()
    assert key.state(now) == "revoked"


@pytest.mark.django_db
def test_a_taken_prefix_is_drawn_again(agent, monkeypatch):
    drawn = iter(["a" * 64, "aaaaaaaa", "b" * 64, "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(keys.secrets, "token_hex", lambda size: next(drawn))
    assert keys.issue(agent).startswith("ng_aaaaaaaa_")
    assert keys.issue(agent).startswith("ng_bbbbbbbb_")


@given(st.one_of(st.text(), st.binary(), st.text().map(lambda text: "ng_" + text)))
def test_parsing_never_raises(token):
    parts = keys.parts(token)
    assert parts is None or all(parts)


def test_what_cannot_be_a_token_is_none():
    for token in ("", "ng", "ng_", "ng__", "ng_a_", "ng__b", "sk_a_b", "ng_ä_b", b"ng_\xff_b", "ng_a_" + "b" * 500):
        assert keys.parts(token) is None
    assert keys.parts(b"ng_a_b") == keys.parts("ng_a_b") == ("a", "b")


@pytest.mark.django_db
def test_a_rotated_key_works_until_its_overlap_ends(agent):
    old_token = keys.issue(agent, "laptop", scopes=[keys.Scope.ADMIN], actor="ann")
    new_token = keys.rotate(AgentKey.objects.get(), timedelta(hours=1), actor="ann")
    live, now = Tables.load("simulated"), timezone.now().timestamp()
    assert live.key_for(new_token, now).scopes == live.key_for(old_token, now).scopes == {"admin"}
    assert live.key_for(old_token, now + 3590) is not None
    assert live.key_for(old_token, now + 3601) is None
    assert live.key_for(new_token, now + 3601) is not None
    assert list(AuditEntry.objects.values_list("action", flat=True).order_by("pk")) == [
        "issue_key",
        "issue_key",
        "end_key",
    ]


@pytest.mark.django_db
def test_without_an_overlap_the_old_key_ends_at_once(agent):
    old_token = keys.issue(agent)
    keys.rotate(AgentKey.objects.get(), actor="ann")
    assert Tables.load("simulated").key_for(old_token, timezone.now().timestamp()) is None


@pytest.mark.django_db
def test_rotation_renews_a_keys_life_and_never_prolongs_the_old_one(agent):
    keys.issue(agent, expires_at=timezone.now() + timedelta(minutes=30))
    old = AgentKey.objects.get()
    ends = old.expires_at
    keys.rotate(old, timedelta(days=1), actor="ann")
    old.refresh_from_db()
    assert old.expires_at == ends
    new = AgentKey.objects.exclude(pk=old.pk).get()
    assert timedelta(minutes=29) < new.expires_at - timezone.now() <= timedelta(minutes=31)
