"""Narrowgauge's own headers, both ways."""

import pytest

from optimizer.core.request import Decision, Priority, Task
from optimizer.ports import Waiting
from tests.fake_engine import FakeEngine, completed, started

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": False}


async def test_hints_reach_the_request(client, engine):
    headers = {
        "X-Narrowgauge-Task-Type": "code_generation",
        "X-Narrowgauge-Reasoning-Steps": "4",
        "X-Narrowgauge-Expected-Lines": "120",
        "X-Narrowgauge-Expertise": "0.8",
        "X-Narrowgauge-Template": "code:python",
        "X-Narrowgauge-Priority": "Interactive",
        "X-Narrowgauge-Deadline": "12.5",
        "X-Narrowgauge-Conversation": "thread 7",
    }
    for path in ("/v1/chat/completions", "/api/chat"):
        assert (await client.post(path, CHAT, headers=headers)).status == 200
    for request in engine.requests:
        assert request.task == Task("code_generation", 4, 120, 0.8, template="code", language="python")
        assert (request.priority, request.deadline_s) == (Priority.INTERACTIVE, 12.5)
        assert request.conversation == "thread 7"


async def test_without_hints_everything_is_left_to_the_agent(client, engine):
    await client.post("/api/chat", CHAT)
    (request,) = engine.requests
    assert (request.task, request.priority, request.deadline_s) == (Task(), None, None)
    assert request.cache_read and request.cache_write and request.options == {} and request.think is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Task-Type", "a b"),
        ("Task-Type", "x" * 65),
        ("Reasoning-Steps", "-1"),
        ("Reasoning-Steps", "1.5"),
        ("Reasoning-Steps", "many"),
        ("Expected-Lines", "1e9"),
        ("Expertise", "1.1"),
        ("Expertise", "nan"),
        ("Template", "xml"),
        ("Priority", "urgent"),
        ("Deadline", "0"),
        ("Deadline", "inf"),
        ("Deadline", "99999999"),
        ("Conversation", "é"),
        ("Conversation", "c" * 200),
    ],
)
async def test_a_hint_that_cannot_be_read_is_400_with_its_name(client, engine, name, value):
    answer = await client.post("/v1/chat/completions", CHAT, headers={f"X-Narrowgauge-{name}": value})
    assert answer.status == 400 and answer.json()["error"]["param"] == f"X-Narrowgauge-{name}"
    assert not engine.requests


@pytest.mark.parametrize(
    ("value", "read", "write"),
    [
        ("no-cache", False, True),
        ("No-Store", True, False),
        ("no-cache, no-store", False, False),
        ("max-age=0", True, True),
    ],
)
async def test_cache_control_turns_the_cache_off(client, engine, value, read, write):
    await client.post("/api/chat", CHAT, headers={"cache-control": value})
    assert (engine.requests[0].cache_read, engine.requests[0].cache_write) == (read, write)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_the_answers_headers_say_what_was_decided(connect, path, streamed):
    reason = Decision("selection", "opus", "complexité 0.91 ≥ 0.8\r\nset-cookie: x")
    begin = started("deepseek-r1:8b", "opus", complexity=0.91, cache="exact", load_s=2.5, simulated=True)
    begin = type(begin)(**{n: getattr(begin, n) for n in begin.__slots__} | {"decisions": (reason,)})
    answer = await connect(FakeEngine([begin, completed("ok")])).post(path, {**CHAT, "stream": streamed})
    ours = {n.removeprefix("x-narrowgauge-"): v for n, v in answer.headers.items() if n.startswith("x-narrowgauge-")}
    assert ours == {
        "model": "deepseek-r1:8b",
        "tier": "opus",
        "complexity": "0.910",
        "cache": "exact",
        "queue-seconds": "0.250",
        "load-seconds": "2.500",
        "tokens-saved": "7",
        "simulated": "true",
        "decision": "complexit? 0.91 ? 0.8?set-cookie: x",
    }


async def test_real_answers_are_not_marked_simulated(client):
    assert "x-narrowgauge-simulated" not in (await client.post("/api/chat", CHAT)).headers


async def test_a_quick_wait_leaves_no_queue_headers(connect):
    answer = await connect(FakeEngine([Waiting(2, 1.0, "busy"), started(), completed("ok")])).post("/api/chat", CHAT)
    assert "x-narrowgauge-queue-position" not in answer.headers
