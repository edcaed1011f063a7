"""Accepting over HTTP when the database does not take it: refused clearly, never a half-accepted task."""

from types import SimpleNamespace

import pytest
from django.db import OperationalError

from controlplane.api import durable
from controlplane.durable_tasks import KeyReused
from controlplane.wire.errors import HttpError


def call(outcome) -> SimpleNamespace:
    async def in_database(*_):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    changed: list[int] = []
    service = SimpleNamespace(in_database=in_database, tasks_changed=lambda: changed.append(1))
    return SimpleNamespace(service=service, changed=changed)


@pytest.mark.parametrize(("error", "status", "code"), [
    (OperationalError("database or disk is full"), 503, "not_stored"),
    (KeyReused("used"), 422, "idempotency_key_reused"),
])  # fmt: skip
async def test_what_is_not_stored_is_not_accepted(error, status, code):
    made = call(error)
    with pytest.raises(HttpError) as refused:
        await durable.stored(made, None)
    assert (refused.value.problem.status, refused.value.problem.code) == (status, code)
    assert "disk" not in refused.value.problem.message and not made.changed


@pytest.mark.parametrize("new", [True, False])
async def test_the_runner_hears_of_what_is_new_only(new):
    made = call(("row", new))
    assert await durable.stored(made, None) == ("row", new) and made.changed == [1] * new
