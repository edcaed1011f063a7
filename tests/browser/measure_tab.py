"""Does a tab grow that is open all day? `python -m tests.browser.measure_tab --minutes 60`.

Rule: nothing is made faster: a real page on a real `manage.py up` with the simulated card, under the load of all
agents, for as long as asked. Prints how soon the page is usable (the first frame is drawn; the middle of nine visits),
then, at the start and every few minutes, the JavaScript heap after a forced collection, DOM nodes, listeners, and the
frames and kilobytes a second that came since the last line.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from playwright.async_api import Page, async_playwright

from tests.browser.conftest import ARGUMENTS
from tests.browser.screenshots import KEYS, agent
from tests.served import Served, bearer, manage

SETTLE_S = 60.0


async def main(minutes: float, every_minutes: float, speed: str) -> None:
    with tempfile.TemporaryDirectory() as directory, Served(Path(directory), "simulated", ("--speed", speed)) as server:
        made = manage("shell", "-v", "0", "-c", KEYS, "--data-dir", directory)
        tokens = [line for line in made.stdout.split() if line.startswith("ng_")]
        server.wait(lambda: server.get("/v1/models", headers=bearer(tokens[-1])).status_code == 200, 10)
        load = [asyncio.create_task(agent(server.url, token, seed)) for seed, token in enumerate(tokens)]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            sizes: list[int] = []
            page.on("websocket", lambda ws: ws.on("framereceived", lambda payload: sizes.append(len(payload))))
            await page.goto(server.url)
            await page.fill("#id_username", "admin")
            await page.fill("#id_password", server.password)
            await page.click("button.primary")
            await page.wait_for_selector("#recent a")
            await asyncio.sleep(SETTLE_S)
            visits = sorted([await _usable_s(page, server.url) for _ in range(9)])
            print(f"usable after {visits[4]:.2f} s (from {visits[0]:.2f} to {visits[-1]:.2f})", flush=True)
            session = await page.context.new_cdp_session(page)
            sizes.clear()
            began = looked = time.monotonic()
            await asyncio.sleep(10)
            while True:
                await session.send("HeapProfiler.collectGarbage")
                used = (await session.send("Runtime.getHeapUsage"))["usedSize"]
                dom = await session.send("Memory.getDOMCounters")
                now = time.monotonic()
                print(
                    f"{(now - began) / 60:5.1f} min  {used / 1e6:6.1f} MB  {dom['nodes']} nodes  "
                    f"{dom['jsEventListeners']} listeners  {len(sizes) / (now - looked):.2f} frames/s  "
                    f"{sum(sizes) / (now - looked) / 1000:.1f} kB/s",
                    flush=True,
                )
                sizes.clear()
                looked = now
                if now - began >= minutes * 60:
                    break
                await asyncio.sleep(every_minutes * 60)
            await browser.close()
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)


async def _usable_s(page: Page, url: str) -> float:
    began = time.monotonic()
    await page.goto(url, wait_until="commit")
    await page.wait_for_selector("#models li")
    return time.monotonic() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: 60")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between two lines (default: 5)")
    parser.add_argument("--speed", default="5", help="of the simulated card (default: 5)")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.minutes, chosen.every, chosen.speed))
