"""The whole journey in a browser: record, export, import, replay with a change, see it, apply, watch, roll back."""

import re
from pathlib import Path

import httpx
import pytest

from tests.browser.conftest import serious
from tests.served import Served, bearer, manage

pytestmark = pytest.mark.slow

# An hour of questions that come again every 4 minutes, under a TTL of 1 minute, in the served data directory.
PLANT = """
import time
from dataclasses import replace
from controlplane import stores
from tests.controlplane.test_stores import RECORD
models, buffer = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"), stores.RecordBuffer()
for n in range(240):
    key = ({"stage": "cache", "values": {"key": str(n % 16)}},)
    buffer.save(replace(RECORD, id=f"planted{n}", arrived_at=time.time() - 60 - n * 14, model=models[n % 16 % 3],
                        output_tokens=100 + 37 * n % 400, total_s=9.0, decisions=key))
buffer.flush()
"""
LIMIT_MS = 120_000  # a replay, on a busy machine


@pytest.fixture
def own(tmp_path_factory):
    """A server whose history and thresholds are this test's alone."""
    with Served(tmp_path_factory.mktemp("replay"), "simulated", ("--speed", "100")) as served:
        yield served


def thresholds(server: Served, key: str) -> dict:
    found = server.get("/control/v1/thresholds", headers=bearer(key)).json()["thresholds"]
    return {name: field["value"] for name, field in found.items()}


def test_record_export_import_replay_apply_watch_roll_back(visit, own, axe, tmp_path: Path):
    key = own.key("debugger", "--scope", "requests", "--scope", "admin")
    page = visit(server=own, path="/replay/", forgive="422")  # the broken file, which is said beside the form
    assert "Nothing recorded yet" in page.inner_text("main")
    assert manage("shell", "-c", PLANT, "--data-dir", str(own.data_dir)).returncode == 0

    page.reload()
    assert "240 requests" in page.inner_text("main")
    page.wait_for_selector("#chart-recorded .main-svg")
    page.select_option("form[aria-label=Export] select", "1")
    with page.expect_download() as download:
        page.click("text=Export as JSON lines")
    file = tmp_path / "hour.jsonl"
    download.value.save_as(file)
    assert len(file.read_text().splitlines()) == 240

    broken = tmp_path / "broken.jsonl"
    broken.write_text(file.read_text().splitlines()[0] + "\n{broken\n")
    page.set_input_files("input[type=file]", broken)
    page.click("button:text-is('Import')")
    assert "traffic line 2" in page.inner_text("[role=alert]")
    page.set_input_files("input[type=file]", file)
    page.click("button:text-is('Import')")
    page.wait_for_selector("text=hour.jsonl: 240 requests")
    assert page.locator("select[name=traffic] option:checked").inner_text().startswith("hour.jsonl")

    # A suggestion's link fills the change in; the imported hour is what it is tried on.
    page.goto(f"{own.url}/replay/?cache_ttl_s=60")
    assert page.input_value("#f-cache_ttl_s") == "60"
    page.select_option("select[name=traffic]", index=1)
    page.click("text=Run the replay")
    page.wait_for_selector("#result-title", timeout=LIMIT_MS)
    assert "What would have happened" in page.inner_text("main"), page.inner_text("main")
    rows = {row.split("\t")[0]: row for row in page.inner_text("table.sides tbody >> nth=0").splitlines()}
    assert {"mean response", "p95 response", "within target", "swaps"} <= set(rows)
    assert re.search(r"better in \d of \d+ pieces", page.inner_text("main"))
    assert {"opus", "sonnet", "default"} == {name.lower() for name in page.locator("th.tier").all_inner_texts()}
    page.wait_for_selector("#chart-curve .main-svg")
    page.wait_for_selector("#chart-pieces .main-svg")
    assert not serious(page, axe)

    page.fill("#reason", "to see what a short memory costs")
    page.click("button:text-is('Apply')")
    page.wait_for_selector("text=In force: cache_ttl_s = 60")
    assert thresholds(own, key)["cache_ttl_s"] == 60.0
    assert "to see what a short memory costs" in page.inner_text("main")

    asked = {"prompt": "How tall is a tree?", "model": "default"}
    answer = httpx.post(f"{own.url}/control/v1/tasks", headers=bearer(key), json=asked, timeout=60, trust_env=False)
    assert answer.status_code == 200

    def watched() -> int:  # records are written a moment after their answers
        page.reload()
        return page.locator("text=Predicted").count()

    own.wait(watched, 60)
    assert page.inner_text("table.sides >> nth=1").count("s\t") > 0

    page.click("button:text-is('Roll back')")
    page.wait_for_selector("text=Rolled back: cache_ttl_s = 60")
    assert thresholds(own, key)["cache_ttl_s"] == 3600.0
    page.goto(f"{own.url}/thresholds")
    assert "to see what a short memory costs" in page.inner_text("main")


def test_the_thresholds_page_shows_the_effect_before_it_is_saved(visit, own, axe):
    assert manage("shell", "-c", PLANT, "--data-dir", str(own.data_dir)).returncode == 0
    page = visit(server=own, path="/thresholds")
    page.fill("#f-cache_ttl_s", "60")
    page.fill("#f-temperature", "0.5")
    page.fill("#f-reason", "to try")
    page.click("text=Show the effect first")
    page.wait_for_selector("#preview-result table, #preview-result .bad", timeout=LIMIT_MS)
    assert "within target" in page.inner_text("#preview-result"), page.inner_text("#preview-result")
    assert "cannot show the effect of temperature" in page.inner_text("main")
    assert page.input_value("#f-cache_ttl_s") == "60" and page.input_value("#f-reason") == "to try"
    assert not serious(page, axe)
    page.click("text=Put into force")
    page.wait_for_selector("text=In force: temperature = 0.5, cache_ttl_s = 60")
    page.click("td form button >> nth=0")
    page.wait_for_selector("text=is undone")
