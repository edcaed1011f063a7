"""/control/v1/series and /control/v1/suggestions: what they answer, and whom they refuse."""

import json
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import cache
from django.db import connections
from django.test import AsyncRequestFactory

from controlplane import keys, seed, thresholds
from controlplane.api.series import series_view
from controlplane.api.suggestions import collection, single_decision
from controlplane.models import Agent, AuditEntry, Suggestion
from controlplane.tables import Tables

pytestmark = pytest.mark.django_db(transaction=True)


class Service:
    """What an endpoint needs of a service."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.refreshed = 0

    def key_used(self, prefix: str, at: float) -> None:
        """Nobody looks."""

    async def in_database(self, work, *arguments):
        return await sync_to_async(work)(*arguments)

    async def refresh(self) -> None:
        self.refreshed += 1


@pytest.fixture
async def put_away() -> AsyncIterator[None]:
    """Closes the connection of the thread that the endpoints' database work ran in, for tests that may have none."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def service(put_away) -> Service:
    seed.seed()
    agent = Agent.objects.get(slug="debugger")
    plain = keys.issue(agent)
    admin = keys.issue(agent, scopes=[keys.Scope.REQUESTS, keys.Scope.ADMIN])
    made = Service(Tables.load("simulated"))
    made.plain, made.admin = plain, admin
    return made


@pytest.fixture
def call(service):
    """`await call(view, key, "?range=1h")`: (status, data)."""

    async def ask(view, token: str, query: str = "", method: str = "get", **path):
        made = getattr(AsyncRequestFactory(), method)(f"/{query}", headers={"Authorization": f"Bearer {token}"})
        made.scope = {"service": service}
        response = await view(made, **path)
        return response.status_code, json.loads(response.content)

    return ask


async def test_series_are_read_with_any_key_and_a_known_range(call, service):
    await sync_to_async(cache.clear)()
    status, data = await call(series_view, service.plain, "?range=6h")
    assert status == 200 and data["step_s"] == 300 and len(data["points"]) in (72, 73)
    status, data = await call(series_view, service.plain, "?range=1y")
    assert status == 400 and data["error"]["param"] == "range" and "7d" in data["error"]["message"]
    assert (await call(series_view, "ng_wrong"))[0] == 401


async def test_suggestions_are_listed_applied_and_rolled_back_with_an_admin_key(call, service):
    row = await Suggestion.objects.acreate(rule="tune-stay", severity="high", title="stay up", change={"stay": 30.0})
    status, data = await call(collection, service.plain)
    assert status == 200 and [s["id"] for s in data["suggestions"]] == [row.pk]

    async def decide(token: str, decision: str, number: int = row.pk):
        return await call(single_decision, token, method="post", number=number, decision=decision)

    assert (await decide(service.plain, "apply"))[0] == 403
    assert (await decide(service.admin, "explode"))[0] == 404
    assert (await decide(service.admin, "apply", 999))[0] == 404
    status, data = await decide(service.admin, "apply")
    assert (status, data["state"], data["actor"]) == (200, "applied", "agent debugger")
    assert (await sync_to_async(thresholds.current)()).stay == 30.0 and service.refreshed == 1
    status, data = await decide(service.admin, "dismiss")
    assert status == 409 and "is applied" in data["error"]["message"]
    assert (await decide(service.admin, "roll-back"))[1]["state"] == "rolled_back"
    assert (await call(collection, service.plain))[1]["suggestions"] == []
    assert len((await call(collection, service.plain, "?state=all"))[1]["suggestions"]) == 1
    assert (await call(collection, service.plain, "?state=odd"))[0] == 400
    assert await AuditEntry.objects.filter(actor="agent debugger", action="applied").acount() == 1


async def test_advice_can_only_be_dismissed_and_a_bad_change_stays_open(call, service):
    advice = await Suggestion.objects.acreate(rule="backend-lost", severity="high", title="look")
    bad = await Suggestion.objects.acreate(rule="tune-stay", severity="high", title="bad", change={"stay": -1.0})

    async def decide(row: Suggestion, decision: str):
        return await call(single_decision, service.admin, method="post", number=row.pk, decision=decision)

    status, data = await decide(advice, "apply")
    assert status == 409 and "dismiss" in data["error"]["message"]
    assert (await decide(advice, "dismiss"))[1]["state"] == "dismissed"
    status, data = await decide(bad, "apply")
    assert status == 400 and data["error"]["param"] == "stay"
    assert (await Suggestion.objects.aget(pk=bad.pk)).state == "open"
