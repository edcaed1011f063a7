"""Two web processes and an engine are one product: what is changed in one is so in the others within a second."""

import asyncio
import json
import re
import time
from collections.abc import Iterator

import aiohttp
import httpx
import pytest

from tests.scaled import Scaled
from tests.served import bearer, free_port

pytestmark = pytest.mark.slow

WITHIN_S = 1.0
TRIES = 3  # on a machine that is busy with other things the best of three counts


class Person:
    """Somebody signed in at one web process; the other takes the same cookie."""

    def __init__(self, url: str, password: str) -> None:
        self.browser = httpx.Client(base_url=url, trust_env=False, timeout=30, follow_redirects=True)
        self.browser.get("/login/")
        answer = self.post("/login/", {"username": "admin", "password": password})
        assert answer.status_code == 200 and "sessionid" in self.browser.cookies

    def post(self, path: str, data: dict[str, str]) -> httpx.Response:
        return self.browser.post(path, data={**data, "csrfmiddlewaretoken": self.browser.cookies["csrftoken"]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    with Scaled(tmp_path_factory.mktemp("coherence"), "simulated", ("--speed", "20")) as served:
        served.second_port = free_port()
        served.start_web(served.second_port)
        served.wait(lambda: httpx.get(f"{second(served)}/healthz", trust_env=False).status_code == 200)
        yield served


@pytest.fixture(scope="module")
def key(server: Scaled) -> str:
    token = server.key("tester", "--scope", "requests", "--scope", "admin")
    server.wait(lambda: status_of(server, token) == 200, 10)
    return token


@pytest.fixture(scope="module")
def person(server: Scaled) -> Iterator[Person]:
    somebody = Person(server.url, server.password)
    yield somebody
    somebody.browser.close()


def second(server: Scaled) -> str:
    return f"http://127.0.0.1:{server.second_port}"


def status_of(server: Scaled, token: str) -> int:
    """What the second web process says to a key."""
    return httpx.get(f"{second(server)}/v1/models", headers=bearer(token), trust_env=False, timeout=10).status_code


def taken_s(condition) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    return time.monotonic() - began


def ask(url: str, token: str, text: str) -> httpx.Response:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=bearer(token), timeout=30, trust_env=False)


def test_a_key_revoked_in_one_is_refused_in_the_other_within_a_second(server, key, person):
    times = []
    for number in range(TRIES):
        token = server.manage("agentkey", "debugger", "--name", f"n{number}").stdout.strip()
        server.wait(lambda token=token: status_of(server, token) == 200, 10)
        page = person.browser.get("/agents/debugger").text
        [live] = set(re.findall(r"/agents/debugger/keys/(\d+)/revoke", page))
        began = time.monotonic()
        assert person.post(f"/agents/debugger/keys/{live}/revoke", {}).status_code == 200
        answered_s = time.monotonic() - began
        # Counted from the answer to whoever revoked it; the change itself lies before that.
        times.append(taken_s(lambda token=token: status_of(server, token) == 401) if answered_s < 5 else answered_s)
        assert ask(server.url, token, "hello").status_code == 401
        if times[-1] <= WITHIN_S:
            break
    assert min(times) <= WITHIN_S, times


def test_a_threshold_changed_in_one_holds_in_the_engine_at_once_and_in_the_other_within_a_second(server, key):
    change = {"changes": {"gpu_memory_mb": 5000}, "reason": "a larger card"}
    answer = httpx.patch(
        f"{server.url}/control/v1/thresholds", json=change, headers=bearer(key), timeout=30, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["thresholds"]["gpu_memory_mb"]["value"] == 5000

    def get(path: str) -> dict:
        return httpx.get(second(server) + path, headers=bearer(key), timeout=30, trust_env=False).json()

    assert get("/control/v1/status")["vram"]["usable_mb"] == pytest.approx(4500), "the engine's own view"
    assert taken_s(lambda: get("/control/v1/thresholds")["thresholds"]["gpu_memory_mb"]["value"] == 5000) <= WITHIN_S


def test_an_order_given_at_one_holds_for_the_other(server, key):
    def order(url: str, action: str) -> dict:
        answer = httpx.post(
            f"{url}/control/v1/control/{action}", json={}, headers=bearer(key), trust_env=False, timeout=30
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    order(server.url, "pause")
    refused = ask(second(server), key, "while paused")
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    order(second(server), "resume")
    assert ask(server.url, key, "after the pause").status_code == 200


def test_an_answer_given_by_one_is_on_the_pages_and_in_the_history_of_the_other(server, key):
    task = httpx.post(
        f"{server.url}/control/v1/tasks", json={"prompt": "hello"}, headers=bearer(key), timeout=30, trust_env=False
    ).json()
    shown = httpx.get(f"{second(server)}/control/v1/tasks/{task['id']}", headers=bearer(key), trust_env=False).json()
    assert shown["status"] == "succeeded" and shown["result"]["text"] == task["result"]["text"]


def test_the_live_picture_of_a_web_process_comes_from_the_engine(server, key, person):
    async def watch() -> list[dict]:
        cookies = {"sessionid": person.browser.cookies["sessionid"]}
        async with (
            aiohttp.ClientSession(cookies=cookies, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
            session.ws_connect(f"{second(server)}/ws/live", headers={"origin": second(server)}) as channel,
        ):
            frames = []
            while len(frames) < 3:
                message = await channel.receive(timeout=10)
                frames.append(json.loads(message.data))
                await channel.send_str("drawn")
            return frames

    frames = asyncio.run(watch())
    assert [frame["kind"] for frame in frames] == ["first", "frame", "frame"]
    assert frames[1]["number"] < frames[2]["number"]
    assert frames[2]["snapshot"]["ended"]["replied"] >= 1
    assert {queue["model"] for queue in frames[0]["snapshot"]["queues"]}
    assert person.browser.get("/").status_code == 200
