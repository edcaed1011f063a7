"""Signing in: the right password is let in, many wrong ones are slowed down, for that name and from that address."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from controlplane.models import SignInAttempt
from controlplane.models.sign_in import MOST_PER_ADDRESS, MOST_PER_NAME, WINDOW
from controlplane.sign_in import address_of

pytestmark = pytest.mark.django_db
NOW = timezone.now()


@pytest.fixture
def ann() -> User:
    return User.objects.create_superuser("ann", password="correct horse")


def post(client, name: str, password: str, door: str = "/login/", **headers: str):
    return client.post(door, {"username": name, "password": password}, **headers)


@pytest.mark.parametrize("door", ["/login/", "/admin/login/"])
def test_too_many_wrong_passwords_are_refused_and_the_right_one_too(client, ann, door):
    for _ in range(MOST_PER_NAME):
        assert post(client, "ann", "wrong", door).status_code == 200
    refused = post(client, "ann", "correct horse", door)
    assert refused.status_code == 429 and 0 < int(refused.headers["Retry-After"]) <= WINDOW.total_seconds()
    assert "_auth_user_id" not in client.session
    other_door = "/login/" if door != "/login/" else "/admin/login/"
    assert post(client, "ann", "correct horse", other_door).status_code == 429
    assert post(client, "ANN", "correct horse", door).status_code == 429, "case does not open it again"


def test_others_and_other_addresses_are_not_locked_out(client, ann):
    for _ in range(MOST_PER_NAME + 1):
        post(client, "ann", "wrong")
    assert post(client, "bob", "wrong").status_code == 200
    assert post(client, "ann", "correct horse", REMOTE_ADDR="192.0.2.7").status_code == 302


def test_the_right_password_makes_up_for_the_wrong_ones(client, ann):
    for _ in range(3):
        for _ in range(MOST_PER_NAME - 1):
            assert post(client, "ann", "wrong").status_code == 200
        assert post(client, "ann", "correct horse").status_code == 302
        client.logout()
    assert not SignInAttempt.objects.exists()


def test_many_names_from_one_address_are_refused_too(client, ann):
    for number in range(MOST_PER_ADDRESS):
        assert post(client, f"guess-{number}", "password1").status_code == 200
    assert post(client, "ann", "correct horse").status_code == 429


def test_the_wait_is_right_and_refusals_do_not_make_it_longer():
    for seconds in range(MOST_PER_NAME):
        assert SignInAttempt.begin("ann", "a", NOW + timedelta(seconds=seconds)) == 0
    later = NOW + timedelta(seconds=60)
    assert SignInAttempt.begin("ann", "a", later) == pytest.approx(WINDOW.total_seconds() - 60)
    assert SignInAttempt.begin("ann", "a", later) == pytest.approx(WINDOW.total_seconds() - 60)
    assert SignInAttempt.begin("ann", "a", NOW + WINDOW) > 0
    assert SignInAttempt.begin("ann", "a", NOW + WINDOW + timedelta(milliseconds=1)) == 0


def test_a_clock_that_was_set_back_locks_nobody_out():
    for _ in range(MOST_PER_NAME):
        SignInAttempt.begin("ann", "a", NOW + timedelta(days=4000))
    assert SignInAttempt.begin("ann", "a", NOW) == 0


def test_neither_name_nor_address_is_kept(client, ann):
    post(client, "ann", "wrong", REMOTE_ADDR="192.0.2.7")
    [row] = SignInAttempt.objects.values_list()
    assert "ann" not in str(row) and "192.0.2.7" not in str(row)


def test_the_proxys_word_counts_only_when_there_is_a_proxy(rf, settings):
    request = rf.get("/", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 192.0.2.7")
    settings.SECURE_PROXY_SSL_HEADER = None
    assert address_of(request) == "127.0.0.1"
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert address_of(request) == "192.0.2.7"


def test_odd_names_are_only_wrong(client, ann):
    for name in ("", "\x00", b"\xed\xa0\x80", "x" * 10_000, "ann\n"):
        assert post(client, name, "wrong").status_code in (200, 400)
