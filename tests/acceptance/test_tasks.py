"""Durable tasks from outside: kept through kill -9, one result each, an agent's own; bad input breaks nothing."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.measure_tasks import Receiver, run_round
from tests.served import Served, bearer, manage

pytestmark = pytest.mark.slow

TASKS, BATCHES = "/control/v1/tasks", "/control/v1/batches"


class Api:
    """Calls with one key."""

    def __init__(self, served: Served, key: str) -> None:
        self.served, self.key = served, key

    def __call__(self, method: str, path: str, headers: dict | None = None, **rest: Any) -> httpx.Response:
        sent = {**bearer(self.key), **(headers or {})}
        return httpx.request(method, self.served.url + path, headers=sent, timeout=60, trust_env=False, **rest)

    def task(self, prompt: str, headers: dict | None = None, **rest: Any) -> httpx.Response:
        return self("POST", TASKS, headers, json={"prompt": prompt, "wait": False, **rest})

    def until(self, task_id: str, *statuses: str) -> dict:
        self.served.wait(lambda: self("GET", f"{TASKS}/{task_id}").json()["status"] in statuses, 30)
        return self("GET", f"{TASKS}/{task_id}").json()

    def events(self, task_id: str, headers: dict | None = None) -> list[tuple[str, str, dict]]:
        """(id, event, data) until the stream ends."""
        blocks = self("GET", f"{TASKS}/{task_id}/events", headers).text.strip().split("\n\n")
        fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks if block]
        return [(f["id"], f["event"], json.loads(f["data"])) for f in fields if "event" in f]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("tasks"), "simulated", ("--speed", "20")) as served:
        yield served
        assert "Traceback" not in served.log


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> Iterator[Served]:
    """Slow enough to be caught at work. The last test that uses it stops it."""
    with Served(tmp_path_factory.mktemp("slow-tasks"), "simulated", ("--speed", "1")) as served:
        yield served


@pytest.fixture(scope="module")
def api(server) -> Api:
    return Api(server, server.key("owner"))


@pytest.fixture(scope="module")
def stranger(server) -> Api:
    return Api(server, server.key("stranger"))


@pytest.fixture(scope="module")
def admin(server) -> Api:
    return Api(server, server.key("boss", "--scope", "requests", "--scope", "admin"))


def test_what_was_accepted_before_a_kill_is_answered_once_after_it(tmp_path):
    receiver = Receiver()
    try:
        came_to = run_round(tmp_path, "20", 1, 25, receiver)
    finally:
        receiver.close()
    assert came_to.problems == []
    assert came_to.accepted == 50 and came_to.claimed_at_kill > 0 and came_to.unfinished_at_kill > 5
    assert came_to.claimed_done_s < 60


def test_an_accepted_task_has_an_address_where_its_answer_appears(api):
    accepted = api.task("Why is the sky blue?", priority="batch")
    assert accepted.status_code == 202 and accepted.json()["status"] == "queued"
    assert accepted.headers["location"] == f"{TASKS}/{accepted.json()['id']}"
    done = api.until(accepted.json()["id"], "succeeded")
    assert done["result"]["text"] and done["model"] and done["priority"] == "batch" and done["simulated"] is True
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] and done["attempts"] == 1
    assert [d["stage"] for d in done["decisions"]] == ["selection", "generation", "cache", "compression", "context"]
    waited = api("POST", TASKS, json={"prompt": "Why is the sky blue?", "cache": False}).json()
    assert {*waited} - {*done} == set(), "an answer looks the same, waited for or not"


def test_an_idempotency_key_is_one_task_however_often_it_is_sent(api, stranger):
    key = {"Idempotency-Key": "order-7"}
    first, again = api.task("count the eggs", key), api.task("count the eggs", key)
    assert first.json()["id"] == again.json()["id"] and again.headers["idempotent-replayed"] == "true"
    other = api.task("count the hens", key)
    assert other.status_code == 422 and other.json()["error"]["type"] == "idempotency_key_reused"
    assert stranger.task("count the hens", key).status_code == 202
    lines = [api("POST", BATCHES, key, content='{"prompt": "x"}\n') for _ in range(2)]
    assert lines[0].json()["id"] == lines[1].json()["id"] and lines[0].status_code == 202
    assert api("POST", BATCHES, key, content='{"prompt": "y"}').status_code == 422
    for wrong in ("", "x" * 256, "a b"):
        assert api.task("x", {"Idempotency-Key": wrong}).status_code == 400
    assert api("POST", TASKS, key, json={"prompt": "x"}).json()["error"]["param"] == "wait"


def test_a_foreign_task_or_batch_does_not_exist(api, stranger, admin):
    task = api.task("a private question").json()["id"]
    batch = api("POST", BATCHES, content='{"prompt": "private"}').json()["id"]
    for method, path in (
        ("GET", f"{TASKS}/{task}"), ("DELETE", f"{TASKS}/{task}"), ("POST", f"{TASKS}/{task}/cancel"),
        ("GET", f"{TASKS}/{task}/events"), ("GET", f"{BATCHES}/{batch}"), ("DELETE", f"{BATCHES}/{batch}"),
        ("POST", f"{BATCHES}/{batch}/cancel"), ("GET", f"{BATCHES}/{batch}/results"),
    ):  # fmt: skip
        answer = stranger(method, path)
        assert answer.status_code == 404 and answer.json()["error"]["type"].endswith("_not_found"), (method, path)
    assert api.until(task, "succeeded") and admin("GET", f"{TASKS}/{task}").status_code == 200
    for path, name in ((f"{TASKS}?wait=false", "tasks"), (BATCHES, "batches")):
        assert {row["agent"] for row in stranger("GET", path).json()[name]} <= {"stranger"}
        assert {
            row["agent"] for row in stranger("GET", f"{path}{'&' if '?' in path else '?'}agent=owner").json()[name]
        } <= {"stranger"}
        assert {"owner"} <= {row["agent"] for row in admin("GET", path).json()[name]}


def test_listings_are_filtered_and_read_page_by_page(server):
    api = Api(server, server.key("lister"))
    made = [api.task(f"page {number}").json()["id"] for number in range(5)]
    for task in made:
        api.until(task, "succeeded")
    seen, path = [], f"{TASKS}?wait=false&status=succeeded&limit=2"
    while True:
        page = api("GET", path).json()
        seen += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            break
        path = f"{TASKS}?wait=false&status=succeeded&limit=2&cursor={page['next']}"
    assert seen == made[::-1]
    assert api("GET", f"{TASKS}?wait=false&status=failed").json() == {"tasks": [], "next": None}
    for wrong in ("status=done", "limit=x", "cursor=x", "cursor=99999999999999999999", "limit=-1"):
        assert api("GET", f"{TASKS}?wait=false&{wrong}").status_code == 400, wrong


def test_a_watcher_hears_each_change_and_resumes_where_it_was(slow):
    api = Api(slow, slow.key("owner"))
    lasting = "Explain tides in 300 words."  # some seconds of running: a watcher looks twice a second
    task = api.task(lasting, max_tokens=400).json()["id"]
    heard = api.events(task)
    assert [event for _, event, _ in heard] in (["queued", "running", "succeeded"], ["running", "succeeded"])
    assert heard[-1][2]["result"]["text"] and heard[-1][2]["status"] == "succeeded"
    assert [event for _, event, _ in api.events(task, {"Last-Event-ID": heard[-2][0]})] == ["succeeded"]
    assert api.events(task, {"Last-Event-ID": heard[-1][0]}) == []
    running = api.task("Explain storms in 2000 words.", max_tokens=2000).json()["id"]
    api.until(running, "running")
    cancelled = api("DELETE", f"{TASKS}/{running}")
    assert cancelled.status_code == 200 and cancelled.json()["status"] == "cancelled"
    assert api("POST", f"{TASKS}/{running}/cancel").json()["status"] == "cancelled", "again is no error"
    slow.wait(lambda: not any(slot["job_id"] for slot in status(api)["slots"]), 15)
    assert api("DELETE", f"{TASKS}/{task}").json()["error"]["type"] == "task_ended"
    assert [event for _, event, _ in api.events(running)] == ["cancelled"]


def test_a_stop_and_a_start_lose_nothing_and_cost_no_attempt(slow):
    api = Api(slow, slow.key("owner"))
    made = [api.task(f"item {number}", cache=False, max_tokens=40).json()["id"] for number in range(6)]
    slow.wait(lambda: api("GET", f"{TASKS}?wait=false&status=running").json()["tasks"], 30)
    assert slow.stop() == 0
    with Served(slow.data_dir, "simulated", ("--speed", "50")) as again:
        api.served = again
        assert {api.until(task, "succeeded")["attempts"] for task in made} == {1}


def test_a_batch_goes_in_as_lines_and_comes_out_as_lines(api):
    lines = [
        {"custom_id": "one", "prompt": "Name a fruit.", "model": "default"},
        {"custom_id": "two", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "default", "messages": [{"role": "user", "content": "Name a tree."}], "max_tokens": 8}},
        {"prompt": "x" * 200_000, "model": "default", "custom_id": "too-long"},
    ]  # fmt: skip
    accepted = api("POST", BATCHES, content="\n".join(map(json.dumps, lines)))
    assert accepted.status_code == 202 and accepted.json()["total"] == 3
    where = accepted.headers["location"]
    api.served.wait(lambda: api("GET", where).json()["status"] == "finished", 30)
    shown = api("GET", where).json()
    assert shown["counts"]["succeeded"] + shown["counts"]["failed"] == 3
    answer = api("GET", shown["results"])
    assert answer.headers["content-type"] == "application/jsonl"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [(row["line"], row["custom_id"]) for row in rows] == [(1, "one"), (2, "two"), (3, "too-long")]
    assert all(row["result"]["text"] for row in rows[:2]) and {row["priority"] for row in rows} == {"batch"}
    assert len(api("GET", f"{TASKS}?wait=false&batch={shown['id']}").json()["tasks"]) == 3
    assert api("DELETE", where).json()["error"]["type"] == "batch_finished"


def test_a_batch_with_a_bad_line_is_refused_whole_and_the_line_named(api):
    bad = api("POST", BATCHES, content='{"prompt": "x"}\n{"prompt": "y", "webhook_url": "http://elsewhere"}\n')
    assert bad.status_code == 400 and bad.json()["error"]["message"].startswith("line 2: webhook_url")
    assert bad.json()["error"]["param"] == "line 2: webhook_url"
    refused = api("PATCH", "/control/v1/agents/owner", json={"webhook_url": "http://elsewhere"})
    assert refused.status_code in (400, 403), "no call sets where webhooks go"


def test_the_webhook_is_told_under_a_signature_and_the_task_says_so(api):
    receiver = Receiver()
    try:
        hooked = manage("agentwebhook", "owner", receiver.url, "--data-dir", str(api.served.data_dir))
        assert hooked.stdout.startswith("whsec_")
        task = api.task("Tell me when you are done.").json()["id"]
        api.served.wait(lambda: receiver.told.get(task), 20)
        api.served.wait(lambda: api("GET", f"{TASKS}/{task}").json()["webhook"]["status"] == "delivered", 10)
    finally:
        manage("agentwebhook", "owner", "--remove", "--data-dir", str(api.served.data_dir))
        receiver.close()


def test_hostile_input_is_refused_and_nothing_breaks(api):
    def raw(data: bytes, path: str) -> int:
        answer = api("POST", path, {"Content-Type": "application/json"}, content=data)
        assert answer.json()["error"]["message"], answer.text
        return answer.status_code

    for odd in ("x", "%00", "..%2f..", "%F0%9F%98%80", "task-" + "9" * 3000, "'; DROP TABLE x; --", "%ff"):
        for path in (f"{TASKS}/{odd}", f"{TASKS}/{odd}/events", f"{BATCHES}/{odd}", f"{BATCHES}/{odd}/results"):
            assert 400 <= api("GET", path).status_code < 500, path
        assert 400 <= api("DELETE", f"{TASKS}/{odd}").status_code < 500
        assert 400 <= api("POST", f"{BATCHES}/{odd}/cancel").status_code < 500
        for path in (f"{TASKS}?wait=false&status={odd}", f"{TASKS}?wait=false&batch={odd}", f"{BATCHES}?cursor={odd}"):
            assert api("GET", path).status_code < 500, path
    wrong = (
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"prompt": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    )
    for data in wrong:
        assert raw(data, TASKS) == 400 and raw(data, BATCHES) == 400, data[:40]
    assert raw(b'{"wait": false, "stream": true, "prompt": "x"}', TASKS) == 400
    assert raw(b'{"wait": "maybe", "prompt": "x"}', TASKS) == 400
    assert raw(b'{"wait": false, "webhook_url": "http://169.254.169.254/", "prompt": "x"}', TASKS) == 400
    assert raw(json.dumps({"wait": False, "prompt": "x" * (5 * 1024 * 1024)}).encode(), TASKS) == 413
    assert raw(b'{"prompt": "x"}\n' * 10_001, BATCHES) == 400
    assert raw(b"x" * (33 * 1024 * 1024), BATCHES) == 413
    with socket.create_connection(("127.0.0.1", api.served.port), 30) as left:  # a watcher that leaves
        task = api.task("short").json()["id"]
        left.sendall(
            f"GET {TASKS}/{task}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\n\r\n".encode()
        )
    assert api.until(task, "succeeded")


def status(api: Api) -> dict:
    return api("GET", "/control/v1/status").json()
