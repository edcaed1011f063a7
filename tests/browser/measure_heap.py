"""Does an open tab grow? Feeds the overview frames as fast as it draws them, four seconds apart, and reads its heap.

Run: `python -m tests.browser.measure_heap`. Rule: the page is the real one, served by `manage.py up`; only its
channel is replaced, by frames of the size and the change of a busy engine. Prints used JavaScript heap (after a
forced collection) and the number of DOM nodes, every 225 frames: a quarter of an hour, as long as its history.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import WebSocketRoute, sync_playwright

from tests.browser.conftest import ARGUMENTS
from tests.served import Served

STEP = 225
APART_S = 4.0
MODELS = ("deepseek-r1:8b", "qwen2.5-coder:7b", "tinyllama")


def frames(first: dict, count: int) -> Iterator[str]:
    """`first` (a real whole picture), then so many frames in which everything changes every second."""
    dice, picture = random.Random(1), first["snapshot"]
    agents = [f"agent-{number}" for number in range(131)]
    recent: list[dict] = []
    yield json.dumps(first)
    for number in range(1, count + 1):
        picture["at"] += APART_S
        for _ in range(4):
            row = {"id": f"task-{number}-{dice.random()}", "agent": dice.choice(agents), "model": dice.choice(MODELS)}
            figures = {"tier": "default", "status": "replied", "error": "", "cache": "miss", "complexity": 0.5}
            times = {"age_s": 0.1, "queue_s": dice.random(), "total_s": dice.random() * 9, "output_tokens": 99}
            recent.insert(0, {**row, **figures, **times})
        del recent[20:]
        picture["recent"] = recent
        picture["agents"] = {agent: [dice.randint(0, 3), 0, 9, 0, dice.random() * 60] for agent in agents}
        picture["slots"] = [
            {"slot": slot, "job_id": f"job-{number}-{slot}", "agent": dice.choice(agents), "model": MODELS[number % 3],
             "phase": "decode", "age_s": 1.0, "tokens": number, "tokens_per_s": 40.0}
            for slot in (0, 1)
        ]  # fmt: skip
        for queue in picture["queues"]:
            queue.update(waiting=dice.randint(0, 99), reason=f"because of {number}")
        lists = [[dice.randint(0, 99) for _ in picture["queues"]] for _ in range(3)]
        sample = [picture["at"], *lists, dice.random(), dice.random() * 99, dice.random()]
        bars = [[number * 2 + slot, "run", MODELS[number % 3], slot, -1.0, 0.0, 3, "", False] for slot in (0, 1)]
        yield json.dumps(
            {
                "kind": "frame",
                "number": number,
                "snapshot": picture,
                "sample": sample,
                "bars": bars if number % 3 else [],
            }
        )


def main(count: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Served(Path(directory), "simulated") as server,
        sync_playwright() as p,
    ):
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.url)
        page.fill("#id_username", "admin")
        page.fill("#id_password", server.password)
        received: list[str] = []
        page.on("websocket", lambda ws: ws.on("framereceived", lambda payload: received.append(payload)))
        page.click("button.primary")
        page.wait_for_selector("#models li")
        first = json.loads(received[0])
        drawn = [0]

        def feed(route: WebSocketRoute) -> None:
            supply = frames(first, count)

            def more(_: object) -> None:
                drawn[0] += 1
                frame = next(supply, None)
                if frame is not None and drawn[0] % STEP:
                    route.send(frame)
                elif frame is not None:
                    held.append((route, frame))

            route.on_message(more)
            route.send(next(supply))

        held: list[tuple[WebSocketRoute, str]] = []
        page.route_web_socket("**/ws/live", feed)
        page.reload()
        session = page.context.new_cdp_session(page)
        began = time.monotonic()
        while drawn[0] < count:
            page.wait_for_timeout(200)
            if held:
                session.send("HeapProfiler.collectGarbage")
                used = session.send("Runtime.getHeapUsage")["usedSize"]
                nodes = session.send("Memory.getDOMCounters")["nodes"]
                print(
                    f"{drawn[0]:5} frames  {used / 1e6:6.1f} MB  {nodes} nodes  {time.monotonic() - began:.0f} s",
                    flush=True,
                )
                route, frame = held.pop()
                route.send(frame)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=900, help="default: an hour of them")
    main(parser.parse_args().frames)
