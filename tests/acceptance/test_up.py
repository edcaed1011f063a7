"""`manage.py up` as a program: it refuses clearly, serves, stops cleanly, and loses nothing that was answered."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.served import Served, bearer, free_port, manage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("up"), "simulated", ("--speed", "50")) as served:
        yield served


@pytest.fixture(scope="module")
def key(server):
    return server.key("tester", "--scope", "requests", "--scope", "admin")


def test_it_says_where_it_serves_and_how_to_sign_in_once(server):
    assert f"http://localhost:{server.port}" in server.log
    assert len(server.password) >= 12
    assert "SIMULATED" in server.log


def test_a_second_owner_of_the_data_directory_is_refused_and_told_who_has_it(server):
    second = manage("up", "--port", str(free_port()), "--data-dir", str(server.data_dir), "--backend", "simulated")
    assert second.returncode == 1
    assert f"process {server.process.pid}" in second.stderr and "--data-dir" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = manage("up", "--port", port, "--data-dir", str(tmp_path), "--backend", "simulated")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr and "--port" in refused.stderr


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path):
    # A file in the way stops even root, whom permissions do not.
    (tmp_path / "file").write_text("")
    refused = manage("up", "--port", str(free_port()), "--data-dir", str(tmp_path / "file" / "data"))
    assert refused.returncode == 1
    assert "data directory" in refused.stderr and "Traceback" not in refused.stderr


def test_a_missing_model_file_is_refused_with_what_to_do(tmp_path):
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    before = os.environ.copy()
    os.environ.update(env)
    try:
        refused = manage(
            "up", "--port", str(free_port()), "--data-dir", str(tmp_path / "d"), "--backend", "llamacpp",
            "--models-dir", str(tmp_path / "models"),
        )  # fmt: skip
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert refused.returncode == 1
    assert "pull" in refused.stderr and "Traceback" not in refused.stderr


def test_a_backend_that_is_down_is_waited_for_and_named(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    with Served(tmp_path, "ollama", ("--ollama-url", url), wait_ready=False) as served:
        served.wait(lambda: served.get("/livez").status_code == 200)
        served.wait(lambda: "Not ready yet" in served.log)
        health = served.get("/healthz")
        assert health.status_code == 503 and url in health.json()["reason"]
        body = {"model": "tinyllama", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(
            f"{served.url}/v1/chat/completions", json=body, headers=bearer(served.key()), timeout=30, trust_env=False
        )
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "backend_unavailable"


def test_sigterm_ends_it_cleanly_and_history_survives(tmp_path):
    with Served(tmp_path, "simulated", ("--speed", "50")) as served:
        key = served.key()
        made = httpx.post(
            f"{served.url}/control/v1/tasks", json={"prompt": "remember me"}, headers=bearer(key), timeout=60
        ).json()
        assert served.stop(signal.SIGTERM) == 0
        assert "Stopped." in served.log and "Traceback" not in served.log
    with Served(tmp_path, "simulated", ("--speed", "50")) as served:
        assert "First sign-in" not in served.log
        again = served.get(f"/control/v1/tasks/{made['id']}", headers=bearer(key)).json()
        assert again["result"]["text"] == made["result"]["text"]
        repeat = httpx.post(
            f"{served.url}/control/v1/tasks", json={"prompt": "remember me"}, headers=bearer(key), timeout=60
        ).json()
        assert repeat["cache"] == "exact", "the cache is warm after a restart"


def test_agents_are_made_changed_and_deleted_over_the_api(server, key):
    def call(method: str, path: str, **rest: object) -> httpx.Response:
        return httpx.request(method, server.url + path, headers=bearer(key), timeout=30, trust_env=False, **rest)  # type: ignore[arg-type]

    assert len(call("GET", "/control/v1/agents?tier=sonnet").json()["agents"]) == 59
    made = call("POST", "/control/v1/agents", json={"slug": "new-one", "tier": "sonnet", "priority": "batch"})
    assert made.status_code == 201 and made.json()["priority"] == "batch"
    assert call("POST", "/control/v1/agents", json={"slug": "new-one"}).status_code == 409
    assert call("PATCH", "/control/v1/agents/new-one", json={"paused": True}).json()["paused"] is True
    bad = call("PATCH", "/control/v1/agents/new-one", json={"min_tier": "opus"})
    assert bad.status_code == 400 and bad.json()["error"]["param"] in ("tier", "min_tier")
    token = manage("agentkey", "new-one", "--data-dir", str(server.data_dir)).stdout.strip()
    server.wait(lambda: server.get("/v1/models", headers=bearer(token)).status_code == 200, 10)
    refused = httpx.post(
        f"{server.url}/control/v1/tasks", json={"prompt": "hi"}, headers=bearer(token), timeout=30, trust_env=False
    )
    assert refused.status_code == 503 and refused.json()["error"]["type"] == "intake_paused"
    assert call("DELETE", "/control/v1/agents/new-one").status_code == 204
    assert call("GET", "/control/v1/agents/new-one").status_code == 404
    assert server.get("/v1/models", headers=bearer(token)).status_code == 401


def test_a_key_without_the_admin_scope_may_read_but_not_write(server):
    plain = server.key("plain")
    assert server.get("/control/v1/agents", headers=bearer(plain)).status_code == 200
    refused = httpx.post(
        f"{server.url}/control/v1/agents", json={"slug": "x"}, headers=bearer(plain), timeout=30, trust_env=False
    )
    assert refused.status_code == 403 and "--scope admin" in refused.json()["error"]["message"]


def test_tasks_of_other_agents_are_not_found(server, key):
    made = httpx.post(
        f"{server.url}/control/v1/tasks", json={"prompt": "private"}, headers=bearer(server.key("owner")), timeout=60
    ).json()
    assert server.get(f"/control/v1/tasks/{made['id']}", headers=bearer(server.key("stranger"))).status_code == 404
    assert server.get(f"/control/v1/tasks/{made['id']}", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"{}", None),
        (b'{"prompt": ""}', None),
        (b'{"prompt": 5}', "prompt"),
        (b'{"prompt": "x", "reasoning_steps": -1}', "reasoning_steps"),
        (b'{"prompt": "x", "expertise_level": NaN}', None),
        (b'{"prompt": "x", "promt": "y"}', "promt"),
        (b'{"prompt": "x", "template": "xml"}', "template"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "' + b"x " * 60_000 + b'", "model": "tinyllama"}', None),
    ],
)
def test_a_bad_task_is_a_clear_400(server, key, body, param):
    answer = httpx.post(
        f"{server.url}/control/v1/tasks", content=body, headers=bearer(key), timeout=60, trust_env=False
    )
    if b"x x x" in body:  # long prompts are cut to the tier's budget, and that is said
        assert answer.status_code == 200
        compression = next(d for d in answer.json()["decisions"] if d["stage"] == "compression")
        assert "cut to the budget" in compression["reason"]
        return
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    if param:
        assert param in (answer.json()["error"]["param"] or answer.json()["error"]["message"])


def test_no_key_a_wrong_key_and_an_unknown_model_are_refused(server, key):
    url = f"{server.url}/control/v1/tasks"
    assert httpx.post(url, json={"prompt": "x"}, trust_env=False).status_code == 401
    assert httpx.post(url, json={"prompt": "x"}, headers=bearer(key + "x"), trust_env=False).status_code == 401
    unknown = httpx.post(url, json={"prompt": "x", "model": "gpt-7"}, headers=bearer(key), trust_env=False)
    assert unknown.status_code == 404 and unknown.json()["error"]["type"] == "model_not_found"


def test_a_changed_threshold_takes_effect_on_the_next_request(server, key):
    def change(changes: dict, reason: str = "test") -> httpx.Response:
        body = {"changes": changes, "reason": reason}
        return httpx.patch(
            f"{server.url}/control/v1/thresholds", json=body, headers=bearer(key), timeout=30, trust_env=False
        )

    assert change({"temperature": 9}).status_code == 400
    assert change({"temperature": 0.25}).json()["thresholds"]["temperature"]["value"] == 0.25
    task = httpx.post(
        f"{server.url}/control/v1/tasks",
        json={"prompt": "after the change", "model": "sonnet"},
        headers=bearer(key),
        timeout=60,
    ).json()
    generation = next(d for d in task["decisions"] if d["stage"] == "generation")
    assert generation["values"]["temperature"] == 0.25


def test_a_stream_of_events_ends_with_the_whole_result(server, key):
    body = {"prompt": "stream this", "stream": True}
    with httpx.stream("POST", f"{server.url}/control/v1/tasks", json=body, headers=bearer(key), timeout=60) as answer:
        names = [line[7:] for line in answer.iter_lines() if line.startswith("event: ")]
    assert names[0] == "waiting" and names[-1] == "completed" and "delta" in names and "started" in names


def test_feedback_is_taken_once_per_task_and_only_on_answers(server, key):
    task = httpx.post(
        f"{server.url}/control/v1/tasks", json={"prompt": "rate me"}, headers=bearer(key), timeout=60
    ).json()
    url = f"{server.url}/control/v1/tasks/{task['id']}/feedback"
    given = httpx.post(url, json={"outcome": "good"}, headers=bearer(key), timeout=30, trust_env=False)
    assert given.json() == {"id": task["id"], "outcome": "good", "agent": "tester", "tier": task["tier"]}
    assert httpx.post(url, json={"outcome": "bad"}, headers=bearer(key), timeout=30).status_code == 200
    assert httpx.post(url, json={"outcome": "fine"}, headers=bearer(key), timeout=30).status_code == 400
    missing = url.replace(task["id"], "task-none")
    assert httpx.post(missing, json={"outcome": "good"}, headers=bearer(key), timeout=30).status_code == 404


def test_the_openapi_document_lists_what_is_routed(server):
    document = server.get("/control/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods.keys() - {"parameters"}:
            url = path.replace("{task_id}", "none").replace("{slug}", "none").replace("{key}", "none")
            url = url.replace("{number}", "1")
            assert httpx.request(method, server.url + url, trust_env=False).status_code == 401, (method, path)
    assert server.get("/control/v1/docs").status_code == 200


def test_cached_answers_are_listed_and_taken_out_of_use_by_call(server, key):
    def ask(token: str, text: str) -> str:
        body = {"prompt": text, "model": "default"}
        answer = httpx.post(f"{server.url}/control/v1/tasks", json=body, headers=bearer(token), timeout=60)
        return answer.json()["cache"]

    def entries(token: str) -> list[dict]:
        return server.get("/control/v1/cache", headers=bearer(token)).json()["entries"]

    owner, stranger = server.key("cache-owner"), server.key("cache-stranger")
    assert (ask(owner, "keep this"), ask(owner, "keep this")) == ("miss", "exact")
    server.wait(lambda: entries(owner), 10)
    [entry] = entries(owner)
    assert entry["question"] == "keep this" and entries(stranger) == []
    url = f"{server.url}/control/v1/cache"
    assert httpx.delete(f"{url}/{entry['key']}", headers=bearer(stranger), timeout=30).status_code == 404
    assert httpx.delete(f"{url}/{entry['key']}", headers=bearer(owner), timeout=30).json() == {"invalidated": 1}
    assert ask(owner, "keep this") == "miss"
    assert httpx.delete(f"{url}?all=true", headers=bearer(owner), timeout=30).status_code == 403
    assert httpx.delete(url, headers=bearer(key), timeout=30).status_code == 400
    assert httpx.delete(f"{url}?agent=cache-owner", headers=bearer(key), timeout=30).json() == {"invalidated": 1}
    assert ask(owner, "keep this") == "miss"


def test_the_database_in_use_is_in_the_data_directory(server):
    assert (Path(server.data_dir) / "narrowgauge.sqlite3").exists()
    assert (Path(server.data_dir) / "secret.key").stat().st_mode & 0o077 == 0
