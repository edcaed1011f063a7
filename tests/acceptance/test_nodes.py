"""Two Ollama hosts as processes; one is killed at the worst moments, under load. Every request ends exactly once."""

import asyncio
import threading
import time
from contextlib import ExitStack

import httpx
import pytest

from tests.acceptance.test_recovery import SCOPES, Load, ask, settled, status
from tests.ollama_server.process import ollama_process
from tests.served import Served, bearer, free_port

pytestmark = pytest.mark.slow

RECOVERY_S = 10.0
OPUS = "deepseek-r1:8b"


class Pair:
    """Two test servers for Ollama, and the product on top of them."""

    def __init__(self, tmp_path, stack: ExitStack, speed: float = 10) -> None:
        self.ports = [free_port(), free_port()]
        self.speed = speed
        self.stack = stack
        self.hosts = [ExitStack(), ExitStack()]
        self.dead: set[int] = set()
        self.before: dict[str, int] = {}  # requests ended before this test, by status
        for number in range(2):
            stack.enter_context(self.hosts[number])
            self.raise_up(number)
        urls = [option for port in self.ports for option in ("--ollama-url", f"http://127.0.0.1:{port}")]
        self.served = stack.enter_context(Served(tmp_path, "ollama", tuple(urls)))
        self.key = self.served.key("tester", *SCOPES)

    def raise_up(self, number: int) -> None:
        self.hosts[number].enter_context(ollama_process(self.speed, self.ports[number]))
        self.dead.discard(number)

    def kill(self, number: int) -> None:
        """SIGKILL, see `ollama_process`."""
        self.hosts[number].close()
        self.dead.add(number)

    def ended(self) -> dict[str, int]:
        """Requests of this test that have ended, by status."""
        now = status(self.served, self.key)["ended"]
        return {how: count - self.before.get(how, 0) for how, count in now.items() if count > self.before.get(how, 0)}

    def settled(self, requests: int) -> bool:
        return settled(self.served, self.key, requests + sum(self.before.values()))

    def nodes(self) -> list[dict]:
        return status(self.served, self.key)["nodes"]

    def state(self, number: int) -> str:
        return self.nodes()[number]["state"]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("pair"), stack)


@pytest.fixture(scope="module")
def lasting_slow(tmp_path_factory):
    """Its loads and prompts last seconds, so that a kill hits them."""
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("slow-pair"), stack, speed=2)


@pytest.fixture
def pair(lasting):
    return ready(lasting)


@pytest.fixture
def slow_pair(lasting_slow):
    return ready(lasting_slow)


def ready(pair: Pair) -> Pair:
    """With both hosts up."""
    for number in list(pair.dead):
        pair.raise_up(number)
    pair.served.wait(lambda: [node["state"] for node in pair.nodes()] == ["ready", "ready"], RECOVERY_S)
    pair.before = status(pair.served, pair.key)["ended"]
    return pair


def stream(pair: Pair, model: str, text: str, tokens: int, lines: list[str]) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "max_tokens": tokens,
        "temperature": 0,
    }
    url = f"{pair.served.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=bearer(pair.key), timeout=90, trust_env=False) as answer:
        lines.extend([f"status {answer.status_code}"])
        for line in answer.iter_lines():
            lines.append(line)


def in_background(*arguments) -> threading.Thread:
    thread = threading.Thread(target=stream, args=arguments, daemon=True)
    thread.start()
    return thread


def holder(pair: Pair, phases: tuple[str, ...], model: str) -> int | None:
    """The number of the node that is in one of `phases` with `model`."""
    picture = status(pair.served, pair.key)
    for number, node in enumerate(picture["nodes"]):
        running = [slot for slot in picture["slots"] if slot["slot"] in node["slots"] and slot["job_id"]]
        if any(slot["model"] == model and slot["phase"] in phases for slot in running):
            return number
        if "load" in phases and node["swap"].startswith(f"loading {model}"):
            return number
    return None


def caught(pair: Pair, phases: tuple[str, ...], model: str) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = holder(pair, phases, model)
        if found is not None:
            return found
    raise AssertionError(f"{model} was never seen in {phases}")


@pytest.mark.parametrize("phase", ["load", "prefill"])
def test_a_node_killed_before_the_first_token_has_its_request_answered_by_the_other(slow_pair, phase):
    pair = slow_pair
    lines: list[str] = []
    text = "what does the log say? " * (20 if phase == "load" else 600)
    thread = in_background(pair, OPUS, text, 40, lines)
    victim = caught(pair, (phase,), OPUS)
    pair.kill(victim)
    killed_at = time.monotonic()
    thread.join(90)
    assert not thread.is_alive()
    assert lines[0] == "status 200" and lines.count("data: [DONE]") == 1, lines[-3:]
    assert not any('"error"' in line for line in lines)
    assert time.monotonic() - killed_at < 60
    pair.served.wait(lambda: pair.settled(1), 10)
    assert pair.ended() == {"replied": 1}
    pair.served.wait(lambda: pair.state(victim) == "lost", 40)  # an idle node is asked every 30 s
    assert pair.served.get("/healthz").status_code == 200


def test_a_node_killed_mid_stream_ends_that_stream_with_an_error_and_serves_on_elsewhere(pair):
    lines: list[str] = []
    thread = in_background(pair, OPUS, "a long story", 2000, lines)
    victim = caught(pair, ("decode",), OPUS)
    pair.kill(victim)
    killed_at = time.monotonic()
    thread.join(RECOVERY_S)
    assert not thread.is_alive(), "the caller was not told"
    assert any('"error"' in line for line in lines) and "data: [DONE]" not in lines, lines[-3:]
    assert ask(pair.served, pair.key, "and now?").status_code == 200
    assert time.monotonic() - killed_at < RECOVERY_S
    assert pair.ended() == {"failed": 1, "replied": 1}
    pair.raise_up(victim)
    pair.served.wait(lambda: pair.state(victim) == "ready", RECOVERY_S)


def test_under_load_a_node_dies_and_comes_back_and_every_request_ends_once(pair):
    agents = Load(pair.served.url, pair.key, 24)
    agents.start()
    pair.served.wait(lambda: pair.ended().get("replied", 0) >= 5, 40)
    pair.kill(1)
    pair.served.wait(lambda: pair.state(1) == "lost", RECOVERY_S)
    pair.raise_up(1)
    pair.served.wait(lambda: pair.state(1) == "ready", RECOVERY_S)
    problems = agents.problems()
    pair.served.wait(lambda: pair.settled(agents.requests), 15)
    assert all(problem.startswith("not answered") for problem in problems), problems
    assert len(problems) <= 2, problems  # those that were streaming on its two slots
    ended = pair.ended()
    assert ended.get("failed", 0) == len(problems) and sum(ended.values()) == agents.requests
    assert "Traceback" not in pair.served.log


def test_a_node_is_drained_over_the_api(pair):
    url = f"{pair.served.url}/control/v1/control"

    def steer(action: str) -> httpx.Response:
        return httpx.post(
            f"{url}/{action}", json={"target": pair.nodes()[1]["name"]}, headers=bearer(pair.key), trust_env=False
        )

    assert steer("drain-node").status_code == 200
    pair.served.wait(lambda: pair.state(1) == "drained" and not pair.nodes()[1]["vram"]["residents"], 10)
    assert asyncio.run(_answers(pair, 4)) == [200] * 4
    assert not pair.nodes()[1]["vram"]["residents"]
    assert steer("resume-node").status_code == 200
    pair.served.wait(lambda: pair.state(1) == "ready" and bool(pair.nodes()[1]["vram"]["residents"]), 10)


async def _answers(pair: Pair, count: int) -> list[int]:
    asked = (asyncio.to_thread(ask, pair.served, pair.key, f"question {number}") for number in range(count))
    return [answer.status_code for answer in await asyncio.gather(*asked)]
