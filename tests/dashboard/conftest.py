"""Pages without a server: a stub of the service in the request's scope, and people with roles."""

from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User

from controlplane import seed
from controlplane.control import Control
from controlplane.desk import LocalDesk
from optimizer.core.caching import ResponseCache
from optimizer.core.forecast import View
from optimizer.core.quota import Use
from optimizer.core.state import Counters
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE


class StubRunner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events = []
        self.pipeline = SimpleNamespace(
            cache=ResponseCache(10, 60.0), thresholds=Thresholds(), embed=object(), catalogue=STRATEGY_CATALOGUE
        )
        self.journal = SimpleNamespace(find=lambda _: None, cache={})
        self.scheduler = SimpleNamespace(waiting=list)

    def steer(self, event) -> None:
        self.events.append(event)

    def use_of(self, slug: str) -> Use:
        return Use(1, 7.0, None)

    def cancel(self, job_id: str) -> bool:
        return job_id == "here"

    def catalogue(self):
        return STRATEGY_CATALOGUE

    def view(self) -> tuple[View, float]:
        return View(0.0, (), (), (), 3686.0, 0.0, 0, "", False, (), "", Counters()), 0.0


class StubService:
    def __init__(self) -> None:
        self.backend_name = "simulated"
        self.runner = self.engine = StubRunner()
        self.desk = LocalDesk(self)
        self.control = Control(self)
        self.tables = SimpleNamespace(thresholds=Thresholds(), agents={"debugger": None})
        self.storage = {"waiting": 0, "dropped": 0, "trouble": ""}
        self.refreshed = 0
        self.looked = 0

    async def in_database(self, work, *arguments):
        return await sync_to_async(work)(*arguments)

    async def refresh(self) -> None:
        self.refreshed += 1

    def tasks_changed(self) -> None:
        self.looked += 1

    async def flush(self) -> None:
        pass


class InScope:
    """Middleware that gives the test client's requests the scope that a server's have."""

    service: StubService

    def __init__(self, get_response) -> None:
        self._get_response = get_response

    def __call__(self, request):
        request.scope = {"service": InScope.service}
        return self._get_response(request)


@pytest.fixture
def seeded(db) -> None:
    seed.seed()


@pytest.fixture
def service(settings, seeded) -> StubService:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.InScope"]
    InScope.service = StubService()
    return InScope.service


@pytest.fixture
def sign_in(client, service):
    """`sign_in("operator")`: the test client as somebody of that role; "" for nobody's."""

    def as_role(role: str):
        user = User.objects.create_user(f"a-{role or 'stranger'}")
        if role:
            user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
        return client

    return as_role
