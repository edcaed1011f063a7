"""What must never happen, on a real server that logs everything: fetching, telling secrets, serving strangers."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import httpx
import pytest

from tests.served import Served, bearer

pytestmark = pytest.mark.slow

PROMPT, ANSWERED, TYPED = "marker-prompt-5b1f", "marker-system-77ac", "marker-password-c0de"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    os.environ["NARROWGAUGE_LOG_LEVEL"] = "DEBUG"
    try:
        with Served(tmp_path_factory.mktemp("guarded"), "simulated", ("--speed", "50")) as served:
            yield served
    finally:
        del os.environ["NARROWGAUGE_LOG_LEVEL"]


@pytest.fixture(scope="module")
def key(server) -> str:
    return server.key("tester", "--scope", "requests", "--scope", "admin")


def post(server: Served, path: str, body: object, token: str, **rest: object) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=bearer(token), timeout=60, trust_env=False, **rest)  # type: ignore[arg-type]


@pytest.fixture
def signed_in(server) -> Iterator[httpx.Client]:
    """A browser's cookies, of the administrator."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as browser:
        page = browser.get("/login/")
        form = {"username": "admin", "password": server.password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert page.status_code == 200 and browser.post("/login/", data=form).status_code == 302
        yield browser


# --- nothing is ever fetched ------------------------------------------------------------------------------------


@pytest.fixture
def trap() -> Iterator[tuple[str, list[bytes]]]:
    """An address that must never be called, and what called it."""
    calls: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(1)
                    with connection, suppress(TimeoutError):
                        calls.append(connection.recv(1000))

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x.png", calls
        done.set()
        thread.join()


def test_no_address_from_an_agent_is_ever_called(server, key, trap):
    url, calls = trap
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as itself:
        itself.sendall(b"the trap works")
    server.wait(lambda: calls, 5)
    assert calls.pop() == b"the trap works"
    text = f"Read {url} and ![this]({url}) and <img src='{url}'>"
    image = {"type": "image_url", "image_url": {"url": url}}
    schema = {"$ref": url, "$schema": url, "$id": url, "type": "object", "properties": {"a": {"$ref": url + "#/a"}}}
    tool = {"type": "function", "function": {"name": "f", "description": url, "parameters": schema}}
    user = {"role": "user", "content": text}
    bodies = {
        "/v1/chat/completions": [
            {"model": "auto", "messages": [{"role": "user", "content": [image]}]},
            {"model": "auto", "messages": [{"role": "user", "content": [{"type": "text", "text": text}, image]}]},
            {"model": "sonnet", "messages": [user], "tools": [tool]},
            {"model": "auto", "messages": [user], "response_format": {
                "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
            {"model": url, "messages": [user]},
            {"model": "auto", "messages": [user], "metadata": {"callback": url}, "user": url, "webhook": url},
        ],
        "/v1/completions": [{"model": "auto", "prompt": text, "max_tokens": 8}],
        "/v1/embeddings": [{"model": "auto", "input": [url, text]}],
        "/api/chat": [
            {"model": "auto", "messages": [{**user, "images": [url]}], "stream": False},
            {"model": "sonnet", "messages": [user], "tools": [tool], "format": schema, "stream": False},
            {"model": "auto", "messages": [user], "options": {"url": url, "stop": [url]}, "stream": False},
        ],
        "/api/generate": [
            {"model": "auto", "prompt": text, "images": [url], "stream": False},
            {"model": "auto", "prompt": text, "system": url, "suffix": url, "stream": False},
            {"model": "auto", "prompt": text, "template": url, "stream": False},
        ],
        "/api/show": [{"model": url}],
        "/api/pull": [{"model": url, "insecure": True}],
        "/api/create": [{"model": "x", "from": url, "files": {"x": url}}],
        "/control/v1/tasks": [{"prompt": text, "context": url, "model": "auto"}, {"prompt": text, "conversation": url},
                              {"prompt": text, "wait": False}, {"prompt": text, "wait": False, "webhook": url}],
    }  # fmt: skip
    for path, each in bodies.items():
        for body in each:
            answer = post(server, path, body, key)
            assert answer.status_code < 500, (path, body, answer.text)
    assert calls == []


# --- nothing is told ---------------------------------------------------------------------------------------------


def test_neither_log_nor_metrics_hold_a_prompt_a_key_or_a_password(server, key, signed_in):
    messages = [{"role": "system", "content": ANSWERED}, {"role": "user", "content": f"Say {PROMPT}"}]
    for path, body in {
        "/v1/chat/completions": {"model": "auto", "messages": messages},
        "/v1/completions": {"model": "auto", "prompt": PROMPT},
        "/v1/embeddings": {"model": "auto", "input": PROMPT},
        "/api/chat": {"model": "auto", "messages": messages, "stream": True},
        "/api/generate": {"model": "auto", "prompt": PROMPT, "system": ANSWERED},
        "/control/v1/tasks": {"prompt": PROMPT, "context": ANSWERED, "conversation": PROMPT},
    }.items():
        assert post(server, path, body, key).status_code == 200
        assert post(server, path, {**body, PROMPT: {PROMPT: [PROMPT] * 3}}, key).status_code < 500
        wrong = httpx.post(server.url + path, content=PROMPT, headers=bearer(key), timeout=30, trust_env=False)
        assert wrong.status_code == 400
        assert post(server, path, body, key[:-1] + "x").status_code == 401
        httpx.post(f"{server.url}{path}?api_key={key}", json=body, timeout=30, trust_env=False)
    form = {"username": "admin", "password": TYPED, "csrfmiddlewaretoken": signed_in.cookies["csrftoken"]}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as stranger:
        stranger.get("/login/")
        form["csrfmiddlewaretoken"] = stranger.cookies["csrftoken"]
        assert stranger.post("/login/", data=form).status_code == 200
    issued = signed_in.post(
        "/agents/debugger/keys", data={"csrfmiddlewaretoken": signed_in.cookies["csrftoken"], "name": "x"}
    )
    assert issued.status_code == 200 and 'id="token">ng_' in issued.text
    secret = issued.text.split('id="token">')[1].split("<")[0].split("_")[2]
    server.wait(lambda: "narrowgauge_build_info" in server.get("/metrics").text, 5)
    assert "INFO narrowgauge." in server.log
    for place, text in (("log", server.log), ("metrics", server.get("/metrics").text)):
        for marker in (PROMPT, ANSWERED, TYPED, key.split("_")[2], secret, signed_in.cookies["sessionid"]):
            assert marker not in text, (place, [line for line in text.splitlines() if marker in line][:3])


# --- strangers ---------------------------------------------------------------------------------------------------


def test_a_form_of_another_site_is_refused_whatever_cookies_come_with_it(server, signed_in):
    token = signed_in.cookies["csrftoken"]
    for path, form in {
        "/act": {"action": "pause"},
        "/agents/debugger/keys": {"name": "stolen"},
        "/thresholds": {"temperature": "0.1"},
        "/cache/invalidate": {"all": "1"},
        "/logout/": {},
        "/admin/auth/user/add/": {"username": "mallory"},
    }.items():
        assert signed_in.post(path, data=form).status_code == 403, path
        foreign = {"Origin": "https://evil.example", "Referer": "https://evil.example/"}
        data = {**form, "csrfmiddlewaretoken": token}
        assert signed_in.post(path, data=data, headers=foreign).status_code == 403, path
    assert signed_in.get("/").status_code == 200, "still signed in"


def test_cookies_do_not_open_the_apis_and_pages_of_other_sites_may_not_read_them(server, signed_in):
    for path in ("/control/v1/agents", "/v1/models", "/api/ps"):
        assert signed_in.get(path).status_code == 401
    for path in ("/v1/models", "/api/tags", "/control/v1/agents"):
        answer = server.get(path, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


def test_a_host_we_do_not_answer_to_is_refused(server):
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example"):
        assert server.get("/login/", headers={"Host": host}).status_code == 400


async def _live(server: Served, cookies: dict[str, str], origin: str | None, said: str | bytes = "") -> str:
    """What becomes of a live channel: its first text, or the status or close code it is refused with."""
    headers = {} if origin is None else {"Origin": origin}
    async with aiohttp.ClientSession(cookies=cookies) as session:
        try:
            async with session.ws_connect(f"{server.url}/ws/live", headers=headers) as channel:
                if said:
                    await (channel.send_str(said) if isinstance(said, str) else channel.send_bytes(said))
                while True:
                    message = await channel.receive(10)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return str(channel.close_code)
                    if not said:
                        return str(message.data)
        except aiohttp.WSServerHandshakeError as error:
            return str(error.status)


async def test_the_live_channel_is_for_signed_in_people_on_our_own_pages(server, signed_in):
    cookies = {"sessionid": signed_in.cookies["sessionid"]}
    assert (await _live(server, cookies, server.url)).startswith("{")
    for origin in (None, "", "null", "https://evil.example", "http://localhost.evil.example", "http://localhost:1"):
        assert await _live(server, cookies, origin) in ("400", "403"), origin
    assert await _live(server, {}, server.url) == "4401"
    assert await _live(server, {"sessionid": "x" * 32}, server.url) == "4401"


async def test_a_huge_message_ends_its_channel_and_nothing_else(server, signed_in):
    cookies = {"sessionid": signed_in.cookies["sessionid"]}
    assert await _live(server, cookies, server.url, "x" * 100_000) in ("1009", "1006")
    assert await _live(server, cookies, server.url, b"\xff" * 100_000) in ("1009", "1006")
    assert (await _live(server, cookies, server.url)).startswith("{")


def test_tasks_of_others_cannot_be_seen_or_judged(server, key):
    owner, stranger = server.key("owner"), server.key("stranger")
    made = post(server, "/control/v1/tasks", {"prompt": "private matters"}, owner).json()["id"]
    path = f"/control/v1/tasks/{made}"
    assert server.get(path, headers=bearer(stranger)).status_code == 404
    assert post(server, f"{path}/feedback", {"outcome": "bad"}, stranger).status_code == 404
    assert made not in server.get("/control/v1/tasks?agent=owner", headers=bearer(stranger)).text
    assert server.get(path, headers=bearer(owner)).status_code == 200


# --- an agent's own limits ---------------------------------------------------------------------------------------


def test_an_agents_limits_hold_over_all_doors_and_retry_after_is_right(server, key):
    limited = server.key("limited")
    agent = f"{server.url}/control/v1/agents/limited"

    def limit(requests_per_minute: int) -> None:
        body = {"requests_per_minute": requests_per_minute}
        changed = httpx.patch(agent, json=body, headers=bearer(key), timeout=30, trust_env=False)
        assert changed.json()["requests_per_minute"] == requests_per_minute

    doors = {
        "/v1/chat/completions": {"model": "default", "messages": [{"role": "user", "content": "hi"}]},
        "/api/generate": {"model": "default", "prompt": "hi", "stream": False},
        "/control/v1/tasks": {"model": "default", "prompt": "hi"},
        "/v1/embeddings": {"model": "default", "input": "hi"},
    }
    limit(1)
    assert post(server, "/v1/embeddings", doors["/v1/embeddings"], limited).status_code == 200
    refused = {path: post(server, path, asked, limited) for path, asked in doors.items()}
    assert {answer.status_code for answer in refused.values()} == {429}
    assert all(30 < int(answer.headers["retry-after"]) <= 60 for answer in refused.values())
    assert refused["/v1/embeddings"].json()["error"]["code"] == "agent_limit"
    assert "1 requests a minute" in refused["/api/generate"].json()["error"]
    assert refused["/control/v1/tasks"].json()["error"]["type"] == "agent_limit"
    assert post(server, "/api/generate", doors["/api/generate"], key).status_code == 200, "others go on"
    use = httpx.get(agent, headers=bearer(key), timeout=30, trust_env=False).json()["use"]
    assert 0.5 < use["requests"] <= 1 and use["tokens"] is None and use["concurrent"] == 0
    limit(30)
    while (answer := post(server, "/api/generate", doors["/api/generate"], limited)).status_code == 200:
        pass  # a slow machine may have earned another one by now
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    time.sleep(int(answer.headers["retry-after"]))  # what the header says is what is tested
    assert post(server, "/api/generate", doors["/api/generate"], limited).status_code == 200


def test_nothing_of_all_this_left_a_traceback(server):
    assert "Invalid HTTP_HOST" in server.log and "Traceback" not in server.log
