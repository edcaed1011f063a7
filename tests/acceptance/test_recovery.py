"""What runs the models dies, hangs and comes back: the product says so, recovers, and ends each request once."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.ollama_server import load
from tests.ollama_server.process import ollama_process
from tests.served import Served, bearer, free_port

pytestmark = pytest.mark.slow

SCOPES = ("--scope", "requests", "--scope", "admin")


def status(served: Served, key: str) -> dict:
    return served.get("/control/v1/status", headers=bearer(key)).json()


def settled(served: Served, key: str, requests: int) -> bool:
    """Nothing runs or waits, and every request has ended, once."""
    now = status(served, key)
    free = not now["waiting"] and not any(slot["job_id"] for slot in now["slots"])
    assert sum(now["ended"].values()) <= requests, now["ended"]
    return free and sum(now["ended"].values()) == requests


class Load(threading.Thread):
    """Agents that ask while the test does something else."""

    def __init__(self, url: str, key: str, agents: int) -> None:
        super().__init__(daemon=True)
        self.plans = load.plan(agents, 3, mixed=True, doors=("api", "v1"))
        self.url, self.key = url, key
        self.outcomes: list[load.Outcome] = []

    @property
    def requests(self) -> int:
        return sum(map(len, self.plans))

    def run(self) -> None:
        self.outcomes = asyncio.run(load.run(self.url, self.plans, [self.key]))[1]

    def problems(self) -> list[str]:
        self.join(90)
        assert not self.is_alive(), "somebody still waits for an answer"
        assert len(self.outcomes) == self.requests
        return [outcome.problem for outcome in self.outcomes if outcome.problem]


def ask(served: Served, key: str, text: str) -> httpx.Response:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=bearer(key), timeout=60, trust_env=False)


def test_an_ollama_that_is_killed_and_comes_back_is_taken_up_again(tmp_path):
    port = free_port()
    with Served(tmp_path, "ollama", ("--ollama-url", f"http://127.0.0.1:{port}"), wait_ready=False) as served:
        with ollama_process(20, port):
            served.wait(lambda: served.get("/healthz").status_code == 200)
            key = served.key("tester", *SCOPES)
            agents = Load(served.url, key, 20)
            agents.start()
            served.wait(lambda: status(served, key)["ended"].get("replied", 0) >= 5, 30)
        served.wait(lambda: served.get("/healthz").status_code == 503, 15)
        assert str(port) in served.get("/healthz").json()["reason"]
        with ollama_process(20, port):
            served.wait(lambda: served.get("/healthz").status_code == 200, 15)
            problems = agents.problems()
            served.wait(lambda: settled(served, key, agents.requests), 15)
            assert all(problem.startswith("not answered") for problem in problems), problems
            assert len(problems) < agents.requests / 2, problems
            assert ask(served, key, "and now?").status_code == 200
        assert "Traceback" not in served.log


@pytest.mark.parametrize("wedge", [True, "server"])
def test_an_ollama_that_hangs_is_found_and_its_requests_end_once(tmp_path, wedge):
    with ollama_process(20) as url, Served(tmp_path, "ollama", ("--ollama-url", url)) as served:
        key = served.key("tester", *SCOPES)
        changes = {"changes": {"stall_timeout_s": 2, "probe_interval_s": 2}, "reason": "to see it soon"}
        patched = httpx.patch(
            f"{served.url}/control/v1/thresholds", json=changes, headers=bearer(key), timeout=30, trust_env=False
        )
        assert patched.status_code == 200, patched.text
        agents = Load(served.url, key, 10)
        agents.start()
        served.wait(lambda: status(served, key)["ended"].get("replied", 0) >= 3, 30)
        httpx.post(f"{url}/fault", json={"wedge": wedge}, trust_env=False)
        served.wait(lambda: served.get("/healthz").status_code == 503 or "is lost" in served.log, 30)
        if wedge == "server":
            httpx.post(f"{url}/fault", json={"wedge": False}, trust_env=False)
        served.wait(lambda: served.get("/healthz").status_code == 200, 60)
        problems = agents.problems()
        served.wait(lambda: settled(served, key, agents.requests), 15)
        assert all(problem.startswith("not answered") for problem in problems), problems
        assert ask(served, key, "and now?").status_code == 200
        assert "Traceback" not in served.log


def test_a_killed_child_of_the_embedded_engine_fails_its_request_once_and_is_started_again(tmp_path):
    with Served(tmp_path, "llamacpp") as served:
        key = served.key("tester", *SCOPES)
        story = {"model": "default", "messages": [{"role": "user", "content": "Write a long story."}]}
        body = {**story, "stream": True, "max_tokens": 1200, "temperature": 0}
        url = f"{served.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=bearer(key), timeout=60, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            for child in children(served.process.pid):
                os.kill(child, signal.SIGKILL)
            rest = list(lines)
        assert any('"error"' in line for line in rest), rest[-3:]
        assert not any("[DONE]" in line for line in rest)
        served.wait(lambda: settled(served, key, 1), 20)
        assert ask(served, key, "Say yes.").status_code == 200
        served.wait(lambda: settled(served, key, 2), 20)
        assert status(served, key)["ended"] == {"failed": 1, "replied": 1}
        assert served.get("/healthz").status_code == 200
        assert "Traceback" not in served.log


def children(pid: int) -> list[int]:
    """The processes that run models: children of `up` that are not helpers of Python's own."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    assert found
    return found
