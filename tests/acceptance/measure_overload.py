"""Twice as much as can be served, for ten minutes: `python -m tests.acceptance.measure_overload`.

10,000 requests of 131 agents against a real `manage.py up` on the simulated card, which is made so fast that it can
answer half of them. A refused client comes back when Retry-After says, with the same request, until it is let in or
the time is over. Rule: what is told by the server is held against what happened to the client:
 - every try ends exactly once, in the client's eyes and in the server's count;
 - Retry-After: the first one that a request was given, against the time until it was let in;
 - that promises are not simply too long shows in the queue, which must stay full meanwhile;
 - memory: of the server's process, second by second; a dashboard is open all along and gets its frame every second.
Prints one JSON object. `tests/acceptance/test_overload.py` runs a twentieth of it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import httpx

from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.machine import MachineModel
from optimizer.simulation.workload import Agents, Arrival, capacity_per_s, poisson, strategy_agents
from tests.browser.measure_watchers import processor_s, signed_in
from tests.served import Served, bearer, manage

KEYS = """
from controlplane import keys
from controlplane.models import Agent
for agent in Agent.objects.order_by("tier__rank", "slug"):
    print(agent.tier_id, keys.issue(agent))
print("admin", keys.issue(Agent.objects.order_by("slug").first(), scopes=["requests", "admin"]))
"""
LOAD = 2.0  # x capacity
PROMPT_TOKENS = 60  # mean: what is measured is the queue, not the shaping of long prompts
SATURATED_SHARE = 0.8  # of the places in the queue taken, below which a client was kept away for nothing


@dataclass
class Client:
    """One request and what was said to it. Seconds since the load began."""

    arrival: Arrival
    tries: int = 0
    refused_at: float | None = None  # the first time
    told_s: float = 0.0  # by the first refusal
    admitted_at: float | None = None
    ends: Counter[str] = field(default_factory=Counter)  # of all its tries


@dataclass
class Seen:
    """What was watched beside the clients."""

    rss_mb: list[float] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)  # when, how many
    frame_gaps_s: list[float] = field(default_factory=list)
    processor_s: float = 0.0  # of the server's process


class Overload:
    """One run against one server."""

    def __init__(self, server: Served, tokens: dict[str, list[str]], seconds: float, most_waiting: int) -> None:
        self.server, self.tokens, self.seconds, self.most_waiting = server, tokens, seconds, most_waiting
        self.seen = Seen()
        self.began = 0.0

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    async def run(self, arrivals: list[Arrival], cookie: str) -> list[Client]:
        """Everybody's request from the first try to its last."""
        clients = [Client(arrival) for arrival in arrivals]
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            self.began, used_s = time.monotonic(), processor_s(self.server.process.pid)
            watchers = [asyncio.create_task(self._memory()), asyncio.create_task(self._dashboard(session, cookie))]
            await asyncio.gather(*(self._come(session, number, client) for number, client in enumerate(clients)))
            self.seen.processor_s = processor_s(self.server.process.pid) - used_s
            for watcher in watchers:
                watcher.cancel()
            for watcher in watchers:
                with suppress(asyncio.CancelledError):
                    await watcher
        return clients

    async def _come(self, session: aiohttp.ClientSession, number: int, client: Client) -> None:
        await asyncio.sleep(max(0.0, client.arrival.at_s - self.now))
        while client.admitted_at is None:
            client.tries += 1
            asked_at = self.now
            retry_s = await self._ask(session, number, client)
            if retry_s is None:
                client.admitted_at = asked_at
                return
            if client.refused_at is None:
                client.refused_at, client.told_s = asked_at, retry_s
            if self.now + retry_s > self.seconds:
                return
            await asyncio.sleep(retry_s)

    async def _ask(self, session: aiohttp.ClientSession, number: int, client: Client) -> float | None:
        """One try; the seconds until the next one, None when it was let in."""
        arrival = client.arrival
        tier = STRATEGY_CATALOGUE.models[arrival.model].tier
        tokens = self.tokens[tier]
        body = {
            "model": tier,
            "messages": [{"role": "user", "content": _text(number, arrival)}],
            "max_tokens": arrival.output_tokens,
            "stream": True,
        }
        key = tokens[_place(arrival.agent) % len(tokens)]
        try:
            async with session.post(f"{self.server.url}/v1/chat/completions", json=body, headers=bearer(key)) as answer:
                text = await answer.text()
                if answer.status in (429, 503):
                    client.ends[f"refused {answer.status}"] += 1
                    return float(answer.headers["retry-after"])
        except aiohttp.ClientError as error:
            client.ends[f"broken: {type(error).__name__}"] += 1
            return None
        whole = answer.status == 200 and text.count("data: [DONE]") == 1 and '"error"' not in text
        client.ends["answered" if whole else f"wrong: {answer.status} {text[-200:]}"] += 1
        return None

    async def _memory(self) -> None:
        status = Path(f"/proc/{self.server.process.pid}/status")
        while True:
            text = await asyncio.to_thread(status.read_text)
            line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
            self.seen.rss_mb.append(int(line.split()[1]) / 1024)
            await asyncio.sleep(1.0)

    async def _dashboard(self, session: aiohttp.ClientSession, cookie: str) -> None:
        headers = {"Cookie": cookie, "Origin": self.server.url}
        async with session.ws_connect(f"{self.server.url}/ws/live", headers=headers, max_msg_size=0) as channel:
            last = self.now
            async for message in channel:
                picture = json.loads(message.data)["snapshot"]
                self.seen.frame_gaps_s.append(self.now - last)
                last = self.now
                self.seen.waiting.append((last, picture["waiting"]))
                await channel.send_str("drawn")

    def report(self, clients: list[Client]) -> dict[str, Any]:
        """The figures. Retry-After is judged where its time came before the end."""
        ends: Counter[str] = Counter()
        for client in clients:
            ends.update(client.ends)
        judged = [c for c in clients if c.refused_at is not None and c.refused_at + c.told_s <= self.seconds]
        waits = [(c.told_s, c.admitted_at - c.refused_at) for c in judged if c.admitted_at is not None and c.refused_at]
        # One that was never let in waited at least to the end: it counts as that wrong, not as missing.
        waits += [(c.told_s, self.seconds - c.refused_at) for c in judged if c.admitted_at is None and c.refused_at]
        errors = sorted(abs(actual - told) / told for told, actual in waits)
        full_from = min((c.refused_at for c in clients if c.refused_at is not None), default=0.0)
        filled = [count / self.most_waiting for at, count in self.seen.waiting if full_from < at < self.seconds]
        rss = self.seen.rss_mb
        return {
            "requests": len(clients),
            "tries": sum(client.tries for client in clients),
            "answered": ends["answered"],
            "answered_per_s": round(ends["answered"] / self.seconds, 2),
            "ends": dict(ends),
            "retry_after": {
                "judged": len(waits),
                "told_median_s": median([told for told, _ in waits]) if waits else None,
                "median_error": round(median(errors), 3) if errors else None,
                "p90_error": round(errors[int(0.9 * len(errors))], 3) if errors else None,
                "let_in_at_first_return": round(
                    sum(c.tries == 2 and c.admitted_at is not None for c in judged) / max(1, len(judged)), 3
                ),
                "queue_filled_median": round(median(filled), 3) if filled else None,
                "queue_filled_share_of_time": round(sum(f >= SATURATED_SHARE for f in filled) / max(1, len(filled)), 3),
            },
            "rss_mb": {
                "start": round(rss[0]),
                "peak": round(max(rss)),
                "at_each_fifth": [round(rss[len(rss) * part // 5 - 1]) for part in range(1, 6)],
            },
            "processor_ms_per_try": round(1000 * self.seen.processor_s / max(1, sum(c.tries for c in clients)), 1),
            "processor_share": round(self.seen.processor_s / self.seconds, 3),
            "dashboard": {
                "frames": len(self.seen.frame_gaps_s),
                "longest_gap_s": round(max(self.seen.frame_gaps_s), 2),
            },
        }


def _short(agents: Agents) -> Agents:
    return Agents(agents.catalogue, tuple(replace(group, prompt_tokens=PROMPT_TOKENS) for group in agents.groups))


def _text(number: int, arrival: Arrival) -> str:
    """A prompt of about the arrival's size, to which the simulated card answers at that length."""
    return f"Request {number}: write {arrival.output_tokens} words. " + "Say what was seen. " * (
        arrival.prompt_tokens // 5
    )


def _place(agent: str) -> int:
    """The number in a modelled agent's name."""
    return int(agent.rsplit("-", 1)[1])


def measure(directory: Path, requests: int, seconds: float, most_waiting: int, seed: int = 1) -> dict[str, Any]:
    """Start a server, load it, and give the report."""
    agents = _short(strategy_agents(STRATEGY_CATALOGUE))
    speed = requests / seconds / LOAD / capacity_per_s(MachineModel(), agents)
    workload = poisson(agents, MachineModel().faster(speed), LOAD, seconds)
    arrivals = list(workload.traffic(seed).first())
    with Served(directory, "simulated", ("--speed", f"{speed:.2f}")) as server:
        made = manage("shell", "-v", "0", "-c", KEYS, "--data-dir", str(directory))
        tokens: dict[str, list[str]] = {}
        for line in made.stdout.splitlines():
            tier, _, token = line.partition(" ")
            if token.startswith("ng_"):
                tokens.setdefault(tier, []).append(token)
        [admin] = tokens.pop("admin")
        server.wait(lambda: server.get("/v1/models", headers=bearer(admin)).status_code == 200, 10)
        changes = {"max_waiting": most_waiting, "cache_enabled": False}
        patched = httpx.patch(
            f"{server.url}/control/v1/thresholds",
            json={"changes": changes, "reason": "overload"},
            headers=bearer(admin),
            trust_env=False,
            timeout=30,
        )
        assert patched.status_code == 200, patched.text
        run = Overload(server, tokens, seconds, most_waiting)
        clients = asyncio.run(run.run(arrivals, signed_in(server)))
        ended = server.get("/control/v1/status", headers=bearer(admin)).json()["ended"]
        report = run.report(clients)
        report["server_ended"] = ended
        report["each_try_ended_once"] = sum(ended.values()) == report["tries"] == sum(report["ends"].values())
        report["tracebacks"] = server.log.count("Traceback")
        return {"speed": round(speed, 1), "seconds": seconds, "most_waiting": most_waiting, **report}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.measure_overload", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--most-waiting", type=int, default=200, help="the threshold max_waiting (default: 200)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(Path(directory), given.requests, given.seconds, given.most_waiting), indent=1))


if __name__ == "__main__":
    main()
