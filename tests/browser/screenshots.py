"""Pictures of every page under real load, for the docs: `python -m tests.browser.screenshots --out docs/img`.

Rule: the load goes through the product's own door, as every agent, with the backend named on the command line. Files
are small: one PNG a page, 1280 pixels wide.
"""

import argparse
import asyncio
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from tests.browser.conftest import ARGUMENTS
from tests.served import Served, bearer, manage

TOPICS = ("sorting", "hashing", "caches", "trees", "graphs", "queues", "locks", "sockets")
KEYS = """
from controlplane import keys
from controlplane.models import Agent
for agent in Agent.objects.all(): print(keys.issue(agent, "screenshots"))
"""


async def main(options: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Served(
            Path(directory), options.backend, ("--speed", str(options.speed)) if options.backend == "simulated" else ()
        ) as server,
    ):
        made = manage("shell", "-v", "0", "-c", KEYS, "--data-dir", directory)
        tokens = [line for line in made.stdout.split() if line.startswith("ng_")]
        server.wait(lambda: server.get("/v1/models", headers=bearer(tokens[-1])).status_code == 200, 10)
        load = [asyncio.create_task(agent(server.url, token, seed)) for seed, token in enumerate(tokens)]
        await asyncio.sleep(options.seconds)
        await _pictures(server, options.out)
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)


async def agent(url: str, token: str, seed: int, model: str = "auto") -> None:
    """One agent: asks, reads, thinks, asks again; sometimes what it asked before."""
    dice = random.Random(seed)
    async with httpx.AsyncClient(base_url=url, headers=bearer(token), timeout=600, trust_env=False) as client:
        while True:
            await asyncio.sleep(dice.expovariate(1 / 12))
            topic = dice.choice(TOPICS)
            prompt = dice.choice(
                (
                    f"What is the best way of {topic}?",
                    f"In order to prepare a talk, please explain due to the fact that we use {topic} how they work.",
                    f"Design, step by step, a service that is built on {topic}.",
                )
            )
            body: dict[str, Any] = {"prompt": prompt, "model": model, "reasoning_steps": dice.randint(0, 9)}
            try:
                task = (await client.post("/control/v1/tasks", json=body)).json()
                if "id" in task:
                    outcome = "good" if dice.random() < 0.8 else "bad"
                    await client.post(f"/control/v1/tasks/{task['id']}/feedback", json={"outcome": outcome})
            except (httpx.HTTPError, ValueError):
                await asyncio.sleep(1)


async def _pictures(server: Served, out: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        await page.goto(server.url)
        await page.fill("#id_username", "admin")
        await page.fill("#id_password", server.password)
        await page.click("button.primary")
        await page.wait_for_selector("#recent a")
        await page.wait_for_timeout(3000)
        await _take(page, out, "overview", whole=True)
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_timeout(1500)
        await _take(page, out, "dark")
        await page.emulate_media(color_scheme="light")
        await page.set_viewport_size({"width": 380, "height": 800})
        await page.wait_for_timeout(1500)
        await _take(page, out, "phone")
        await page.set_viewport_size({"width": 1280, "height": 900})
        for name in ("waiting", "requests", "agents", "profiles", "cache", "thresholds", "checklist"):
            await page.goto(f"{server.url}/{name}")
            await _take(page, out, name)
        await page.goto(f"{server.url}/requests?cache=miss&status=replied")
        await page.click("tbody a >> nth=0")
        await page.wait_for_selector(".waterfall")
        await _take(page, out, "request", whole=True)
        await page.goto(f"{server.url}/agents?sort=gpu")
        await page.click("tbody a >> nth=0")
        await page.wait_for_selector("#keys-title")
        await _take(page, out, "agent")
        await page.goto(f"{server.url}/replay/?gpu_memory_mb=8192")
        await page.select_option("#try select[name=span]", "1")
        await page.click("text=Run the replay")
        await page.wait_for_selector("#chart-curve .main-svg", timeout=300_000)
        await _take(page, out, "replay", whole=True)
        await browser.close()


async def _take(page: Page, out: Path, name: str, *, whole: bool = False) -> None:
    await page.screenshot(path=out / f"{name}.png", full_page=whole)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--backend", default="simulated", help="default: simulated")
    parser.add_argument("--speed", type=float, default=5.0, help="of the simulated card (default: 5)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of load before the first picture (default: 120)")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(chosen))
