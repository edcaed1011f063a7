"""A key that was made a moment ago."""

import asyncio
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from controlplane.newcomers import Newcomers
from optimizer.core.errors import BackendUnavailable


class Stored:
    """A front whose next look finds the key `new`."""

    def __init__(self) -> None:
        self.tables = SimpleNamespace(keys={"old": object()})
        self.looks = 0
        self.away = False

    async def look(self) -> None:
        self.looks += 1
        if self.away:
            raise OperationalError("gone")
        await asyncio.sleep(0)
        self.tables.keys["new"] = object()


def bearing(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"here"), (b"Authorization", f"Bearer {token}".encode())]


@pytest.mark.parametrize("token", ["ng_old_s3cret", "", "ng", "sk-of-somebody-else", "ng_new_" + "x" * 500, "ng_nëw_s"])
async def test_a_known_key_and_what_is_none_wait_for_nothing(token):
    stored = Stored()
    await Newcomers(stored).let_in(bearing(token))
    await Newcomers(stored).let_in([(b"host", b"here")])
    assert stored.looks == 0


async def test_an_unknown_key_waits_for_a_look_that_many_share():
    stored = Stored()
    newcomers = Newcomers(stored)
    await asyncio.gather(*(newcomers.let_in(bearing("ng_new_s3cret")) for _ in range(50)))
    assert "new" in stored.tables.keys and stored.looks == 1
    await newcomers.let_in(bearing("ng_new_s3cret"))
    assert stored.looks == 1


async def test_who_comes_while_a_look_is_under_way_waits_for_the_next(monkeypatch):
    monkeypatch.setattr("controlplane.newcomers.EVERY_S", 0.0)
    stored = Stored()
    newcomers, came = Newcomers(stored), []

    async def look() -> None:
        stored.looks += 1
        if stored.looks == 1:
            came.append(asyncio.create_task(newcomers.let_in(bearing("ng_late_s3cret"))))
            await asyncio.sleep(0)

    stored.look = look
    await newcomers.let_in(bearing("ng_new_s3cret"))
    await asyncio.gather(*came)
    assert stored.looks == 2


async def test_a_database_that_is_away_and_an_engine_that_starts_let_the_door_judge():
    stored = Stored()
    stored.away = True
    await Newcomers(stored).let_in(bearing("ng_new_s3cret"))
    assert stored.looks == 1

    class Starting:
        @property
        def tables(self):
            raise BackendUnavailable("starting")

    await Newcomers(Starting()).let_in(bearing("ng_new_s3cret"))
