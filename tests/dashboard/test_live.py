"""The live channel: who gets it, at whose pace, and how small its frames are."""

import json
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import Client

from controlplane.activity import Activity
from controlplane.publisher import GROUP, SAMPLES_SENT, Publisher
from controlplane.timeline import Timeline
from dashboard import consumers
from dashboard.consumers import NOT_ALLOWED, NOT_SIGNED_IN, STARTING, LiveConsumer
from optimizer.core.errors import BackendUnavailable
from optimizer.core.events import ModelLoaded, PrefillFinished, RequestArrived, ResidencyObserved
from optimizer.core.job import Job
from optimizer.core.scheduler import Scheduler
from optimizer.core.stats import Window
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.journal import Bar
from optimizer.monitor import Monitor
from optimizer.nodes import NodeView
from optimizer.ports import Record


class Person:
    is_authenticated = True

    def __init__(self, *permissions: str) -> None:
        self._permissions = permissions

    def has_perm(self, permission: str) -> bool:
        return permission in self._permissions


VIEWER = Person("controlplane.view_requestrecord")


def service(starting: bool = False) -> SimpleNamespace:
    async def first_frame():
        if starting:
            raise BackendUnavailable("starting")
        return "whole"

    async def in_database(work, *arguments):
        return await sync_to_async(work)(*arguments)

    return SimpleNamespace(desk=SimpleNamespace(first_frame=first_frame), in_database=in_database)


@pytest.fixture
def visit(monkeypatch):
    """A browser's channel: `visit(user, origin)`, without a database."""
    people = {}
    monkeypatch.setattr(consumers.auth, "get_user", lambda request: people[request.session.session_key])

    def open_as(user=VIEWER, origin: str = "http://localhost:8000", of=None) -> WebsocketCommunicator:
        headers = [(b"host", b"localhost:8000"), (b"origin", origin.encode())]
        socket = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live", headers)
        people[session := f"session-{len(people)}"] = user
        socket.scope.update(cookies={"sessionid": session}, service=of or service())
        return socket

    return open_as


async def publish(text: str) -> None:
    await get_channel_layer().group_send(GROUP, {"type": "live.frame", "text": text})


@pytest.mark.parametrize(
    ("user", "code"), [(AnonymousUser(), NOT_SIGNED_IN), (Person(), NOT_ALLOWED)], ids=["nobody", "no role"]
)
async def test_strangers_are_turned_away_with_a_reason(visit, user, code):
    socket = visit(user)
    await socket.connect(timeout=10)
    assert await socket.receive_output() == {"type": "websocket.close", "code": code}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:9999", "null", "", "http://localhost:8000.evil.example"]
)
async def test_another_origin_is_refused_even_on_another_port_of_this_host(visit, origin):
    connected, _ = await visit(origin=origin).connect(timeout=10)
    assert not connected


async def test_an_origin_that_the_settings_trust_may_connect(visit, settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://gpu.example"]
    socket = visit(origin="https://gpu.example")
    assert (await socket.connect(timeout=10))[0]
    await socket.disconnect()


async def test_while_the_engine_starts_the_browser_is_asked_to_come_again(visit):
    socket = visit(of=service(starting=True))
    await socket.connect(timeout=10)
    assert (await socket.receive_output())["code"] == STARTING


async def test_a_slow_reader_loses_frames_but_gets_the_latest(visit):
    socket = visit()
    assert (await socket.connect(timeout=10))[0]
    assert await socket.receive_from(timeout=10) == "whole"
    for number in range(5):
        await publish(f"frame {number}")
    assert await socket.receive_nothing(), "the whole picture has not been drawn yet"
    await socket.send_to("drawn")
    assert await socket.receive_from(timeout=10) == "frame 4"
    await socket.send_to("drawn")
    assert await socket.receive_nothing()
    await publish("frame 5")
    assert await socket.receive_from(timeout=10) == "frame 5", "a reader that keeps up gets each at once"
    await socket.disconnect()


async def test_who_missed_too_much_gets_the_whole_picture_but_not_in_a_loop(visit, monkeypatch):
    socket = visit()
    await socket.connect(timeout=10)
    await socket.receive_from(timeout=10)
    await socket.send_to("whole")
    assert await socket.receive_nothing(), "it has just been sent"
    monkeypatch.setattr(consumers, "WHOLE_EVERY_S", 0.0)
    await socket.send_to("whole")
    assert await socket.receive_from(timeout=10) == "whole"
    await socket.disconnect()


async def test_a_role_that_was_taken_away_ends_the_channel(visit, monkeypatch):
    user = Person(*VIEWER._permissions)
    socket = visit(user)
    await socket.connect(timeout=10)
    await socket.receive_from(timeout=10)
    user._permissions = ()
    monkeypatch.setattr(consumers, "LOOK_AGAIN_S", 0.0)
    await socket.send_to("drawn")
    assert (await socket.receive_output())["code"] == NOT_ALLOWED


@pytest.mark.django_db(transaction=True)
async def test_a_sign_out_in_another_tab_ends_the_channel(monkeypatch):
    def sign_in() -> str:
        browser = Client()
        browser.force_login(User.objects.create_superuser("admin"))
        return browser.cookies["sessionid"].value

    socket = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live", [(b"host", b"h"), (b"origin", b"http://h")])
    socket.scope.update(cookies={"sessionid": await sync_to_async(sign_in)()}, service=service())
    await socket.connect(timeout=10)
    assert await socket.receive_from(timeout=10) == "whole"
    monkeypatch.setattr(consumers, "LOOK_AGAIN_S", 0.0)
    await socket.send_to("drawn")
    assert await socket.receive_nothing(), "nobody has signed out yet"
    await sync_to_async(Session.objects.all().delete)()
    await socket.send_to("drawn")
    assert await socket.receive_output(timeout=10) == {"type": "websocket.close", "code": NOT_SIGNED_IN}
    await sync_to_async(connections.close_all)()


# --- what is published ------------------------------------------------------------------------------------


def record(number: int, agent: str, status: str = "replied") -> Record:
    return Record(
        id=f"task-{number:032x}", agent=agent, protocol="openai", kind="chat", wanted="auto", model="tinyllama",
        tier="default", status=status, error="", arrived_at=1e9, queue_s=1.23456, load_s=0.0, prefill_s=0.1,
        decode_s=1.0, ttft_s=1.3, total_s=2.34567, prompt_tokens_original=10, prompt_tokens=10, output_tokens=99,
        cache="miss", complexity=0.5, done_reason="stop", simulated=True, decisions=(), prompt_original="x" * 5000,
        prompt_sent="", answer="",
    )  # fmt: skip


class BusyRunner:
    """131 agents, 500 waiting, both slots taken, full windows and a full journal; nothing moves but the clock."""

    backend_name, simulated = "simulated", True

    def __init__(self) -> None:
        self.now = 1000.0
        self.pipeline = SimpleNamespace(thresholds=Thresholds())
        self.scheduler = Scheduler(Thresholds(), STRATEGY_CATALOGUE)
        self.scheduler.handle(ResidencyObserved(()), 0.0)
        self.scheduler.handle(ModelLoaded("tinyllama", 800.0, 800.0, 1.0), 1.0)
        models = list(STRATEGY_CATALOGUE.models)
        for number in range(502):
            job = Job(f"task-{number:032x}", f"agent-number-{number % 131}", models[number % 3], 300, 200, 30.0)
            self.scheduler.handle(RequestArrived(job), 2.0)
        self.scheduler.handle(PrefillFinished(f"task-{2:032x}"), 3.0)
        window = Window(1e6)
        for number in range(10_000):
            window.add(2.0, number % 50 / 7)
        bars = [
            Bar("run", models[n % 3], n * 0.4, n * 0.4 + 0.39, n % 2, f"agent-number-{n % 131}") for n in range(2400)
        ]
        self.journal = SimpleNamespace(
            ended={"replied": 9000}, cache={"miss": 8000, "exact": 1000}, tokens_in=1, tokens_out=2,
            response_s=dict.fromkeys(models, window), ttft_s=window, bars=bars, monitor=Monitor(lambda: 1e9),
            recent=[record(n, f"agent-number-{n % 131}", "failed" if n % 9 == 0 else "replied") for n in range(1000)],
        )  # fmt: skip

    def view(self):
        return self.scheduler.snapshot(self.now), self.now

    def views(self):
        return [NodeView("simulated", "ready", "", 0, self.view()[0])]

    def unready(self) -> str:
        return ""

    def running(self):
        return []


def test_frames_of_a_busy_engine_are_small_and_hold_no_prompt():
    runner, publisher = BusyRunner(), Publisher()
    assert runner.view()[0].waiting >= 500
    for number in range(250):
        runner.now += 1.0
        frame = publisher.frame(runner, 1e9 + number)
    whole = publisher.first_frame(runner, 1e9 + 250)
    message = json.loads(whole)
    assert len(message["snapshot"]["agents"]) == 131
    assert len(message["samples"]) <= SAMPLES_SENT
    assert len(frame) < 50_000 and len(whole) < 50_000
    assert "xxxxx" not in whole, "no prompt leaves in a frame"


def test_runs_that_follow_each_other_become_one_bar_and_a_swap_begins_another():
    timeline = Timeline()
    bars = [
        Bar("run", "tinyllama", 0.0, 1.0, 0, "a"),
        Bar("run", "tinyllama", 1.2, 2.0, 0, "b"),
        Bar("run", "tinyllama", 1.0, 2.1, 1, "c"),
        Bar("run", "qwen", 2.2, 3.0, 0, "d"),
        Bar("run", "qwen", 9.0, 9.5, 0, "e"),
    ]
    runs = timeline.take(reversed(bars), 10.0)
    assert [run.agent for run in runs] == ["a", "b", "c", "d", "e"]
    drawn = timeline.all(10.0)
    assert [(bar[1], bar[2], bar[3], bar[6], bar[7]) for bar in drawn] == [
        ("run", "tinyllama", 0, 2, ""), ("run", "tinyllama", 1, 1, "c"), ("run", "qwen", 0, 1, "d"),
        ("run", "qwen", 0, 1, "e"),
    ]  # fmt: skip
    assert timeline.take(reversed(bars), 11.0) == [], "what was taken is not taken twice"
    assert timeline.changed_since(10.5, 11.0) == []
    assert timeline.all(9.5 + 901) == []


def test_a_load_is_drawn_while_it_lasts_and_ends_when_it_ends():
    timeline = Timeline()
    load = Bar("load", "qwen", 5.0)
    timeline.take([load], 6.0)
    assert timeline.all(6.0)[0][4:6] == [-1.0, None]
    load.end, load.failed = 8.0, True
    timeline.take([], 9.0)
    assert timeline.all(9.0)[0][5] == -1.0 and timeline.all(9.0)[0][8] is True


def test_what_an_agent_did_is_forgotten_after_a_quarter_of_an_hour():
    activity = Activity()
    recent = [record(1, "a"), record(2, "a", "failed")]
    activity.note(recent, [Bar("run", "m", 0.0, 2.5, 0, "a")], 60.0)
    activity.note(recent, [], 61.0)  # nothing new
    figures = activity.of_agents(61.0)["a"]
    assert (figures.requests, figures.bad, figures.busy_s) == (2, 1, 2.5)
    assert activity.of_agents(60.0 + 900) == {}
