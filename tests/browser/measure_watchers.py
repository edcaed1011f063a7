"""What open dashboards cost the engine: `python -m tests.browser.measure_watchers --watchers 50`.

Rule: with and without watchers take turns in one run (off, on, on, off, ...), under one load, so that what else the
machine does meets both alike; the mean of the rounds is said with its 95 % interval. A block is as long as it takes
until every channel has been asked once whether its viewer may still look (`dashboard.consumers`). The load
`cached` shows it: exact repeats, asked again as soon as they are answered, keep the serving process at its limit, so
that what is spent on watchers is missing. The askers and the watchers' browsers run on the same few cores, though, and
take from the serving process what they would not on machines of their own; so it is also said how many requests each
second of the serving process's own processor time brings, with and without: what a process keeps that has its core to
itself. `agents` is all agents on the simulated card, which the card limits; `rest` is what they leave behind when they
stop: frames of full size and nothing else to do, so that the processor time is the watchers' alone. Watchers have a
process of their own; they draw nothing and acknowledge at once, the most that a browser can ask for. With 200 of them
the cost stands out of the noise four times as far; a quarter of it is at most what 50 cost, because what the channel
layer does for one grows with how many there are.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import aiohttp
import httpx

from tests.browser.screenshots import KEYS, agent
from tests.served import ROOT, Served, bearer, environment, manage

SETTLE_S = 2.0  # after watchers came or went
OPENING, OPEN_WITHIN_S = 10, 60.0  # so many at once, and the time until all are open
REST_S = 8.0  # after the load ended: what it left is worked off
ASKERS = 16  # of the load `cached`
ALIKE = 50  # dashboards that the cost is said of, however many were open


def processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def signed_in(server: Served) -> str:
    """The administrator's session cookie."""
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        browser.get("/login/")
        form = {"username": "admin", "password": server.password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post("/login/", data=form)
        return f"sessionid={browser.cookies['sessionid']}"


# --- the watchers' process ----------------------------------------------------------------------------


async def watch(url: str, cookie: str, watchers: int) -> None:
    """For each line of standard input, dashboards open or close, and a line says when all have: what they were sent."""
    frames: list[int] = []
    watching: list[asyncio.Task[None]] = []

    opening = asyncio.Semaphore(OPENING)

    async def one(session: aiohttp.ClientSession, drawn: asyncio.Event) -> None:
        async with opening:
            socket = await session.ws_connect(f"{url}/ws/live", headers={"Origin": url, "Cookie": cookie})
            first = await socket.receive_str()
        frames.append(len(first))
        drawn.set()
        async with socket:
            await socket.send_str("drawn")
            async for message in socket:
                frames.append(len(message.data))
                await socket.send_str("drawn")
        raise ConnectionError("a watcher lost its channel")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        while await asyncio.to_thread(sys.stdin.readline):
            if watching:
                assert not any(task.done() for task in watching), "a watcher lost its channel"
                told = {"frames": len(frames), "bytes": sum(frames)}
                await stop(watching)
                watching.clear()
            else:
                drawn = [asyncio.Event() for _ in range(watchers)]
                watching += [asyncio.create_task(one(session, event)) for event in drawn]
                for event in drawn:
                    await asyncio.wait_for(event.wait(), OPEN_WITHIN_S)
                frames.clear()
                told = {}
            print(json.dumps(told), flush=True)


class Watchers:
    """Dashboards that open and close when told to."""

    def __init__(self, process: asyncio.subprocess.Process, watchers: int) -> None:
        self._process, self._watchers = process, watchers
        self.told: list[tuple[float, float]] = []  # (frames a second, kB a second) of a dashboard, by block

    @classmethod
    async def start(cls, url: str, cookie: str, watchers: int) -> "Watchers":
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "tests.browser.measure_watchers", "--watch", url, "--watchers", str(watchers)]
        given = {**environment(), "COOKIE": cookie}
        return cls(
            await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=given, stdin=pipe, stdout=pipe), watchers
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """All have drawn a first picture when it begins, and all are gone when it ends."""
        await self._say()
        began = time.monotonic()
        yield
        share = (time.monotonic() - began) * self._watchers
        told = await self._say()
        self.told.append((told["frames"] / share, told["bytes"] / share / 1000))

    async def end(self) -> None:
        await self._process.communicate(b"")  # an end of input: it has to be given for that

    async def _say(self) -> dict[str, float]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        assert line, "the watchers' process ended"
        return json.loads(line)


# --- the load -----------------------------------------------------------------------------------------


async def ask_again(url: str, token: str, count: list[int]) -> None:
    """One of those who ask what is in the cache, as fast as it is answered."""
    body = {"model": "tinyllama", "messages": [{"role": "user", "content": "What is a tree?"}]}
    async with aiohttp.ClientSession(headers=bearer(token)) as session:
        while True:
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.read()
                count[0] += answer.status == 200


def start_load(kind: str, server: Served, tokens: list[str], count: list[int]) -> list[asyncio.Task[None]]:
    if kind != "cached":
        work = [agent(server.url, token, seed) for seed, token in enumerate(tokens)]
    else:
        work = [ask_again(server.url, tokens[0], count) for _ in range(ASKERS)]
    return [asyncio.create_task(one) for one in work]


async def stop(load: list[asyncio.Task[None]]) -> None:
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)


# --- measuring ----------------------------------------------------------------------------------------


async def block(server: Served, seconds: float, replied) -> tuple[float, float]:
    """(requests replied a second, processor seconds a second of the serving process)."""
    began, used_s, count = time.monotonic(), processor_s(server.process.pid), replied()
    await asyncio.sleep(seconds)
    passed_s = time.monotonic() - began
    return (replied() - count) / passed_s, (processor_s(server.process.pid) - used_s) / passed_s


def middle(ratios: list[float], share: float = 1.0) -> str:
    """The geometric mean and its 95 % interval, two standard errors to each side; of a `share` of the watchers."""
    logs = [share * math.log(ratio) for ratio in ratios]
    mean, wide = statistics.mean(logs), 2 * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return f"{math.exp(mean):.3f} ({math.exp(mean - wide):.3f} to {math.exp(mean + wide):.3f})"


async def main(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory, Served(Path(directory), "simulated", ("--speed", "5")) as server:
        made = manage("shell", "-v", "0", "-c", KEYS, "--data-dir", directory)
        tokens = [line for line in made.stdout.split() if line.startswith("ng_")]
        server.wait(lambda: server.get("/v1/models", headers=bearer(tokens[-1])).status_code == 200, 10)
        cookie, count = signed_in(server), [0]
        load = start_load(chosen.load, server, tokens, count)

        def replied() -> int:
            if chosen.load == "cached":
                return count[0]
            return server.get("/control/v1/status", headers=bearer(tokens[0])).json()["ended"].get("replied", 0)

        await asyncio.sleep(chosen.warm_up)
        if chosen.load == "rest":
            await stop(load)
            await asyncio.sleep(REST_S)
        watchers = await Watchers.start(server.url, cookie, chosen.watchers)
        kept, kept_of_core, cost_s = [], [], []
        for number in range(chosen.rounds):
            rates = {}
            for on in (False, True) if number % 2 == 0 else (True, False):
                async with watchers.open() if on else nullcontext():
                    await asyncio.sleep(SETTLE_S)
                    rates[on] = await block(server, chosen.seconds, replied)
            (without, used_without_s), (with_them, used_with_s) = rates[False], rates[True]
            kept.append(with_them / without if without else 1.0)
            cost_s.append(used_with_s - kept[-1] * used_without_s)
            kept_of_core.append(kept[-1] * used_without_s / used_with_s)
            print(
                f"round {number + 1}: {without:.1f} requests/s without dashboards, {with_them:.1f} with "
                f"({kept[-1]:.3f}); processor {used_without_s:.3f} and {used_with_s:.3f}: they cost {cost_s[-1]:.4f}",
                flush=True,
            )
        await watchers.end()
        frames, kb = (statistics.mean(of) for of in zip(*watchers.told, strict=True))
        print(
            f"of the throughput is kept: {middle(kept)}; of the requests per processor second: {middle(kept_of_core)}; "
            f"the dashboards cost {statistics.median(cost_s):.4f} processor seconds a second (median); "
            f"each gets {frames:.2f} frames and {kb:.1f} kB a second"
        )
        if chosen.watchers != ALIKE:
            share = ALIKE / chosen.watchers
            print(f"{ALIKE} of them, if each costs alike: {middle(kept, share)}; {middle(kept_of_core, share)}")
        await stop(load)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=50, help="default: 50")
    parser.add_argument("--load", choices=("cached", "agents", "rest"), default="cached", help="default: cached")
    parser.add_argument("--rounds", type=int, default=20, help="default: 20")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each block (default: 30)")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds of load before the first (default: 20)")
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(watch(options.watch, os.environ["COOKIE"], options.watchers) if options.watch else main(options))
