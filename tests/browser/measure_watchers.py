"""What open dashboards cost the engine: `python -m tests.browser.measure_watchers --watchers 50`.

Rule: with and without watchers take turns in one run (off, on, on, off, ...), under one load, and the middle of the
rounds counts, so that what else the machine does meets both alike. The load `cached` is the one that shows it: exact
repeats, asked again as soon as they are answered, keep the serving process at its limit, so that what is spent on
watchers is missing. The askers and the watchers' browsers run on the same few cores, though, and take from the serving
process what they would not on machines of their own; so it is also said how many requests each second of the serving
process's own processor time brings, with and without: what a process keeps that has its core to itself.
`agents` is all agents on the simulated card, which the card limits; `rest` is what they leave behind when they stop:
frames of full size and nothing else to do, so that the processor time is the watchers' alone. Watchers have a process
of their own; they draw nothing and acknowledge at once, the most that a browser can ask for.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx

from tests.browser.screenshots import KEYS, agent
from tests.served import ROOT, Served, bearer, environment, manage

SETTLE_S = 4.0  # after watchers came or went
ASKERS = 16  # of the load `cached`


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
    """Watch until standard input ends; print what each was sent."""
    sizes: list[int] = []

    async def one(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{url}/ws/live", headers={"Origin": url, "Cookie": cookie}) as socket:
            async for message in socket:
                sizes.append(len(message.data))
                await socket.send_str("drawn")

    async with aiohttp.ClientSession() as session:
        watching = [asyncio.create_task(one(session)) for _ in range(watchers)]
        await asyncio.sleep(SETTLE_S)
        sizes.clear()
        began = time.monotonic()
        await asyncio.to_thread(sys.stdin.read)
        share = (time.monotonic() - began) * watchers
        print(json.dumps({"frames_per_s": len(sizes) / share, "kb_per_s": sum(sizes) / share / 1000}), flush=True)
        lost = sum(task.done() for task in watching)
        os._exit(bool(lost))  # as a browser that is closed: without farewell


@asynccontextmanager
async def watched(url: str, cookie: str, watchers: int, told: list[dict[str, float]]) -> AsyncIterator[None]:
    """Watchers are there meanwhile; what they were sent is appended to `told`."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "tests.browser.measure_watchers", "--watch", url, "--watchers", str(watchers)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**environment(), "COOKIE": cookie}, stdin=pipe, stdout=pipe
    )
    await asyncio.sleep(2 * SETTLE_S)
    yield
    said, _ = await process.communicate(b"")  # an end of input: it has to be given for that
    assert process.returncode == 0, "a watcher lost its channel"
    told.append(json.loads(said))


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


async def main(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory, Served(Path(directory), "simulated", ("--speed", "5")) as server:
        made = manage("shell", "-v", "0", "-c", KEYS, "--data-dir", directory)
        tokens = [line for line in made.stdout.split() if line.startswith("ng_")]
        server.wait(lambda: server.get("/v1/models", headers=bearer(tokens[-1])).status_code == 200, 10)
        cookie, count, told = signed_in(server), [0], []
        load = start_load(chosen.load, server, tokens, count)

        def replied() -> int:
            if chosen.load == "cached":
                return count[0]
            return server.get("/control/v1/status", headers=bearer(tokens[0])).json()["ended"].get("replied", 0)

        await asyncio.sleep(chosen.warm_up)
        if chosen.load == "rest":
            await stop(load)
            await asyncio.sleep(2 * SETTLE_S)
        kept, kept_of_core, cost_s = [], [], []
        for number in range(chosen.rounds):
            rates = {}
            for on in (False, True) if number % 2 == 0 else (True, False):
                if on:
                    async with watched(server.url, cookie, chosen.watchers, told):
                        rates[on] = await block(server, chosen.seconds, replied)
                else:
                    await asyncio.sleep(SETTLE_S)
                    rates[on] = await block(server, chosen.seconds, replied)
            (without, used_without_s), (with_them, used_with_s) = rates[False], rates[True]
            kept.append(with_them / without if without else 1.0)
            cost_s.append(used_with_s - kept[-1] * used_without_s)
            kept_of_core.append(kept[-1] * used_without_s / used_with_s)
            print(
                f"round {number + 1}: {without:.1f} requests/s without dashboards, {with_them:.1f} with "
                f"({kept[-1]:.3f}); processor {used_without_s:.3f} and {used_with_s:.3f}: they cost {cost_s[-1]:.4f}, "
                f"requests per processor second {kept_of_core[-1]:.3f}",
                flush=True,
            )
        frames, kb = (statistics.mean(t[name] for t in told) for name in ("frames_per_s", "kb_per_s"))
        print(
            f"median: {statistics.median(kept):.3f} of the throughput is kept, {statistics.median(kept_of_core):.3f} "
            f"of the requests per processor second; the dashboards cost {statistics.median(cost_s):.4f} processor "
            f"seconds a second; each gets {frames:.2f} frames and {kb:.1f} kB a second"
        )
        await stop(load)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=50, help="default: 50")
    parser.add_argument("--load", choices=("cached", "agents", "rest"), default="cached", help="default: cached")
    parser.add_argument("--rounds", type=int, default=6, help="default: 6")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each block (default: 12)")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds of load before the first (default: 20)")
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(watch(options.watch, os.environ["COOKIE"], options.watchers) if options.watch else main(options))
