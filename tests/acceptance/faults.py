"""Faults of the scaled mode, for the test and for the measurement: what breaks, under which load, and what must hold.

Two web processes (the first one's line to Redis goes through a proxy that can be cut), an engine and a standby, real
Redis, real Postgres. Agents stream all the while through both web processes and both protocols. Whatever breaks: every
stream ends, finished or with an error in its protocol; no request is answered twice; a new request is answered again
within RECOVERY_S of the moment from which that is possible.

Durable tasks are sent all the while too (durable_load.py): each that was accepted succeeds, once.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psycopg

from tests.acceptance.durable_load import DurableTasks
from tests.scaled import Postgres, Process, Proxy, RedisServer, Scaled
from tests.served import bearer, free_port

RECOVERY_S = 10.0
HUNG_S = 30.0  # a stream that is silent for so long hangs
CUT_S = 9.0  # longer than web processes have patience with an engine that does not speak
AWAY_S = 1.0  # how long a killed server stays away
TASKS_DONE_S = 60.0  # how long accepted tasks may take to end after the load stops
ENDS_S = 30.0  # how long streams that are under way may take to end after the load stops
WORDS = "tell me about the harbour"


@dataclass(frozen=True)
class Outcome:
    """How one request ended: answered, refused (HTTP error), broken (error in the stream), dropped (no word), hung."""

    kind: str
    web: int
    marker: str  # in its prompt and in no other
    began: float
    seconds: float
    detail: str = ""


@dataclass
class Streams:
    """Agents that stream one request after the other, until told to stop."""

    urls: list[str]
    key: str
    agents: int = 8
    may_drop: set[int] = field(default_factory=set)  # web processes that were killed: nobody is left to say why

    def __post_init__(self) -> None:
        self.run = time.time_ns()  # in every marker: no two loads ask the same
        self.outcomes: list[Outcome] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(ENDS_S + HUNG_S)

    def answered(self, since: float = 0.0, web: int | None = None) -> int:
        return sum(o.kind == "answered" and o.began >= since and web in (None, o.web) for o in list(self.outcomes))

    def counts(self) -> dict[str, int]:
        return dict(Counter(outcome.kind for outcome in self.outcomes))

    def problems(self) -> list[str]:
        said = ["agents still wait for an answer"] if self._thread.is_alive() else []
        for outcome in self.outcomes:
            if outcome.kind == "hung" or (outcome.kind == "dropped" and outcome.web not in self.may_drop):
                said.append(f"{outcome.kind} on web {outcome.web} after {outcome.seconds:.1f} s: {outcome.detail}")
        return said

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=HUNG_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=bearer(self.key)) as session:
            await asyncio.gather(*(self._agent(session, number) for number in range(self.agents)))

    async def _agent(self, session: aiohttp.ClientSession, number: int) -> None:
        count = 0
        while not self._stopped.is_set():
            count += 1
            web = (number + count) % len(self.urls)
            began = time.monotonic()
            marker = f"<{self.run}-{number}-{count}>"
            try:
                kind, detail = await self._ask(session, self.urls[web], marker, v1=number % 2 == 0)
            except TimeoutError:
                kind, detail = "hung", ""
            except (aiohttp.ClientError, OSError) as error:
                kind, detail = "dropped", repr(error)
            self.outcomes.append(Outcome(kind, web, marker, began, time.monotonic() - began, detail))
            if kind != "answered":
                await asyncio.sleep(0.2)

    async def _ask(self, session: aiohttp.ClientSession, url: str, marker: str, *, v1: bool) -> tuple[str, str]:
        body: dict[str, Any] = {"model": "default", "stream": True}
        body["messages"] = [{"role": "user", "content": f"{marker} {WORDS}"}]
        body |= {"max_tokens": 60} if v1 else {"options": {"num_predict": 60}}
        path = "/v1/chat/completions" if v1 else "/api/chat"
        async with session.post(url + path, json=body) as answer:
            if answer.status != 200:
                error = (await answer.json())["error"]
                return "refused", f"{answer.status} {error}"
            lines = [line async for line in answer.content if line.strip()]
        return _end_of_v1(lines) if v1 else _end_of_api(lines)


def _end_of_v1(lines: list[bytes]) -> tuple[str, str]:
    data = [line[6:].strip() for line in lines if line.startswith(b"data: ")]
    if data.count(b"[DONE]") == 1 and data[-1] == b"[DONE]":
        reasons = [choice["finish_reason"] for d in data[:-1] for choice in json.loads(d)["choices"]]
        return ("answered", "") if sum(map(bool, reasons)) == 1 else ("dropped", f"{reasons}")
    last = json.loads(data[-1]) if data else {}
    return ("broken", str(last["error"])) if "error" in last else ("dropped", f"ends with {last}")


def _end_of_api(lines: list[bytes]) -> tuple[str, str]:
    pieces = [json.loads(line) for line in lines]
    if sum(bool(piece.get("done")) for piece in pieces) == 1 and pieces[-1]["done"]:
        return "answered", ""
    last = pieces[-1] if pieces else {}
    return ("broken", last["error"]) if "error" in last else ("dropped", f"ends with {last}")


@dataclass
class Ground:
    """Everything that may be broken, in working order."""

    served: Scaled
    second: Process
    proxy: Proxy
    redis: RedisServer
    postgres: Postgres
    urls: list[str]
    key: str

    def asked(self, web: int) -> bool:
        """Whether a request is answered now."""
        body = {"model": "default", "messages": [{"role": "user", "content": f"{time.monotonic()} and now?"}]}
        try:
            answer = httpx.post(
                f"{self.urls[web]}/v1/chat/completions",
                json={**body, "max_tokens": 4},
                headers=bearer(self.key),
                timeout=RECOVERY_S,
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def recovery(self, web: int, since: float) -> float:
        """Seconds from `since` until a request is answered. Fails when that takes far too long."""
        while not self.asked(web):
            assert time.monotonic() - since < 6 * RECOVERY_S, self.served.log
            time.sleep(0.1)
        return time.monotonic() - since

    def idle(self) -> bool:
        """Nothing waits or runs at the engine."""
        status = httpx.get(
            f"{self.urls[1]}/control/v1/status", headers=bearer(self.key), timeout=10, trust_env=False
        ).json()
        return "slots" in status and not status["waiting"] and not any(slot["job_id"] for slot in status["slots"])

    def answers(self) -> Counter[str]:
        """How often each request is on record as answered, by its marker."""
        with psycopg.connect(self.postgres.url) as database:
            rows = database.execute(
                "SELECT prompt_original FROM controlplane_requestrecord WHERE status = 'replied'"
            ).fetchall()
        return Counter(found[0] for row in rows if (found := re.search(r"<\d+-\d+-\d+>", row[0])))


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """The ground to break things on."""
    with ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.close)
        redis = RedisServer()
        stack.callback(redis.kill)
        proxy = Proxy(redis.port)
        stack.callback(proxy.close)
        options = ("--speed", "2")
        with Scaled(
            directory / "data",
            "simulated",
            options,
            postgres=postgres,
            redis=redis,
            standby=True,
            redis_port=proxy.port,
        ) as served:
            served.redis_port = 0
            port = free_port()
            second = served.start_web(port)
            urls = [served.url, f"http://127.0.0.1:{port}"]
            served.wait(lambda: httpx.get(f"{urls[1]}/healthz", trust_env=False).status_code == 200)
            key = served.key("tester", "--scope", "requests", "--scope", "admin")
            served.wait(lambda: httpx.get(f"{urls[1]}/v1/models", headers=bearer(key), trust_env=False).is_success, 10)
            yield Ground(served, second, proxy, redis, postgres, urls, key)


# the faults: each breaks something, mends it, and returns how long a request took to be answered again ---------------


def web(on: Ground, load: Streams) -> float:
    """kill -9 of a web process, then it is started again."""
    load.may_drop.add(1)
    on.second.kill()
    began = time.monotonic()
    taken_s = on.recovery(0, began)
    on.second.start()
    on.recovery(1, time.monotonic())  # as long as it takes a process to start
    return taken_s


def engine(on: Ground, load: Streams) -> float:
    """kill -9 of the active engine; the standby takes over, and the killed one comes back as standby."""
    active = on.served.active()
    active.kill()
    taken_s = on.recovery(1, time.monotonic())
    said = active.log.count("Standing by")
    active.start()
    on.served.wait(lambda: active.log.count("Standing by") > said)  # as long as it takes a process to start
    return taken_s


def redis(on: Ground, load: Streams) -> float:
    """kill -9 of Redis; it comes back empty."""
    on.redis.kill()
    time.sleep(AWAY_S)
    on.redis.start()
    return on.recovery(1, time.monotonic())


def postgres(on: Ground, load: Streams) -> float:
    """kill -9 of Postgres: streams go on without it; the pages and tasks' history come back with it."""
    on.postgres.kill()
    time.sleep(AWAY_S)
    during = on.recovery(0, time.monotonic())

    def listed() -> int:
        return httpx.get(
            f"{on.urls[0]}/control/v1/tasks", headers=bearer(on.key), timeout=RECOVERY_S, trust_env=False
        ).status_code

    assert listed() == 503
    on.postgres.start()
    began = time.monotonic()
    on.served.wait(lambda: listed() == 200, 6 * RECOVERY_S)
    return max(during, time.monotonic() - began)


def cut(on: Ground, load: Streams) -> float:
    """The line between a web process and Redis is cut, without a word to either; then it is mended."""
    on.proxy.cut()
    time.sleep(CUT_S)
    on.proxy.mend()
    return on.recovery(0, time.monotonic())


FAULTS: dict[str, Callable[[Ground, Streams], float]] = {
    "web": web,
    "engine": engine,
    "redis": redis,
    "postgres": postgres,
    "network": cut,
}


@dataclass(frozen=True)
class Figures:
    """One fault, once."""

    fault: str
    recovery_s: float
    outcomes: dict[str, int]
    longest_s: float  # of a request that did not end answered
    twice: int
    problems: list[str]
    said: dict[str, int]  # to callers that got no answer
    tasks: int  # durable ones accepted; `problems` says what became of any that did not succeed once
    repeats: int  # of posts of tasks that broke off or were refused


def suffer(on: Ground, fault: str, agents: int = 8) -> Figures:
    """Break one thing under load and say how it went."""
    load = Streams(on.urls, on.key, agents)
    tasks = DurableTasks(on.urls, on.key, on.postgres.url)
    load.start()
    tasks.start()
    on.served.wait(lambda: load.answered() >= agents, 60)
    recovery_s = FAULTS[fault](on, load)
    mended = time.monotonic()
    for number in range(len(on.urls)):
        on.served.wait(lambda number=number: load.answered(mended, number) >= 2, 60)
    load.stop()
    tasks.stop()
    on.served.wait(lambda: not tasks.unfinished(), TASKS_DONE_S)
    problems = [*load.problems(), *tasks.problems()]
    on.served.wait(on.idle, 15)
    time.sleep(1.0)  # records are written twice a second
    twice = {marker: count for marker, count in on.answers().items() if count > 1}
    ended_badly = [outcome.seconds for outcome in load.outcomes if outcome.kind != "answered"]
    said = Counter(o.detail[:100] for o in load.outcomes if o.kind in ("refused", "broken"))
    return Figures(
        fault=fault,
        recovery_s=recovery_s,
        outcomes=load.counts(),
        longest_s=max(ended_badly, default=0.0),
        twice=len(twice),
        problems=problems,
        said=dict(said),
        tasks=len(tasks.accepted),
        repeats=tasks.repeats,
    )
