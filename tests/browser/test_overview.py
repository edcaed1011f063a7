"""The overview's own work: suggestions, ranges, the grid of agents, the keyboard, and news within two seconds."""

import threading
import time

import httpx
import pytest

from tests.browser.conftest import serious
from tests.served import bearer, manage

pytestmark = pytest.mark.slow

SUGGEST = """
from controlplane.models import Suggestion
make = Suggestion.objects.create
make(rule="tune-stay", severity="high", title="stay 15 to 30", body="Fewer swaps.", change={"stay": 30.0})
make(rule="low-hit-rate", severity="medium", title="Few answers from the cache", body="Look.")
"""


@pytest.fixture
def suggested(server):
    made = manage("shell", "-c", SUGGEST, "--data-dir", str(server.data_dir))
    assert made.returncode == 0, made.stderr


@pytest.fixture
def busy(ask):
    """Eight callers who ask again as soon as they are answered."""
    over = threading.Event()

    def keep_asking(number: int) -> None:
        count = 0
        while not over.is_set():
            count += 1
            ask(f"Say number {number} of {count} in many words", "default")

    callers = [threading.Thread(target=keep_asking, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    yield
    over.set()
    for caller in callers:
        caller.join()


def confirm(page) -> None:
    page.click("#confirm button.primary")
    page.wait_for_load_state()


def test_suggestions_are_applied_rolled_back_and_dismissed_from_the_page(visit, server, key, suggested, axe):
    def stay() -> float:
        answer = server.get("/control/v1/thresholds", headers=bearer(key)).json()
        return answer["thresholds"]["stay"]["value"]

    before = stay()
    page = visit("operator")
    page.wait_for_selector("#models li")
    assert serious(page, axe) == []
    page.click(".suggestion:has-text('stay 15 to 30') >> text=Apply")
    assert "stay = 30" in page.inner_text("#confirm-question")
    confirm(page)
    page.wait_for_selector(".banner.success:has-text('In force: stay 15 to 30')")
    assert stay() == 30.0 != before, "in force when the page is there"
    page.click(".applied >> text=Roll back")
    confirm(page)
    page.wait_for_selector(".banner.success:has-text('Rolled back')")
    assert stay() == before
    page.click(".suggestion:has-text('Few answers') >> text=Dismiss")
    page.wait_for_selector(".banner.success:has-text('Dismissed')")
    assert page.locator(".suggestion:has-text('Few answers')").count() == 0


def test_a_longer_range_is_read_from_the_store_and_the_way_back_is_live(visit, ask):
    ask("Leave a trace in the history")
    page = visit()
    page.wait_for_function("() => document.getElementById('chart-queue').layout")

    def span_s() -> float:
        chart = "document.getElementById('chart-queue').layout.xaxis.range"
        return page.evaluate(f"(new Date({chart}[1]) - new Date({chart}[0])) / 1000")

    for value, seconds in (("7d", 604_800), ("1h", 3600), ("15m", 900)):
        page.check(f"input[name=range][value='{value}']", force=True)
        page.wait_for_function(
            "(s) => { const r = document.getElementById('chart-queue').layout.xaxis.range;"
            " return Math.abs((new Date(r[1]) - new Date(r[0])) / 1000 - s) < 2 }",
            arg=seconds,
        )
        if value == "1h":
            tokens = "document.getElementById('chart-speed').data[0].y"
            page.wait_for_function(f"() => {tokens}.length >= 60 && {tokens}.some((y) => y > 0)", timeout=20_000)
    assert page.locator("#chart-timeline .main-svg").count() > 0 and span_s() == pytest.approx(900, abs=2)


def test_the_grid_says_what_each_tier_and_agent_does_and_leads_to_the_agent(visit, ask):
    ask("Work for the debugger")
    page = visit()
    page.wait_for_selector(".cell[data-agent=debugger][title*='requests']")
    assert page.locator(".heat .cell").count() >= 131
    page.wait_for_function("() => document.querySelector('[data-tier-sum=default]').textContent.includes('requests')")
    assert "requests" in page.get_attribute(".cell[data-agent=debugger]", "aria-label")
    page.check("input[name=heat-by][value=errors]", force=True)
    assert "failed" in page.inner_text("#heat-about")
    page.click(".cell[data-agent=debugger]")
    page.wait_for_url("**/agents/debugger")


def test_the_memory_says_what_is_measured_declared_kept_free_and_what_would_fit(visit, ask):
    ask("be loaded")
    page = visit()
    page.wait_for_selector("#models li")
    loaded, absent = page.inner_text("#models li[data-key^='tinyllama']"), page.inner_text("#models")
    assert "MB measured" in loaded and "MB declared" in loaded
    assert "would push out" in absent or "fits beside" in absent or "loading" in absent
    assert "headroom" in page.inner_text("#vram-sum") and page.locator("#memory .headroom").count() == 1


def test_a_change_made_elsewhere_is_seen_within_two_seconds_under_load(visit, server, key, busy):
    page = visit()
    page.wait_for_selector("#slots .who[href]", timeout=10_000)
    for action, seen in (("pin", "text=pinned"), ("unpin", "text=loaded")):
        url = f"{server.url}/control/v1/control/{action}"
        done = httpx.post(url, json={"target": "tinyllama"}, headers=bearer(key), timeout=10, trust_env=False)
        began = time.monotonic()
        assert done.status_code == 200
        row = page.locator("#models li[data-key^='tinyllama']")
        row.locator(f"button:text-is('{'Unpin' if action == 'pin' else 'Pin'}')").wait_for(timeout=2000)
        assert time.monotonic() - began < 2.0, seen


def test_the_keyboard_alone_pauses_resumes_and_chooses_a_range(visit):
    page = visit("operator")
    page.wait_for_selector("#models li")

    def tab_to(text: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent").strip() == text:
                return
        raise AssertionError(f"no way to {text}")

    tab_to("Pause intake")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Yes, do it", "the dialog takes the focus"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Pause intake", "and gives it back"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector(".banner.ok:has-text('Intake is paused.')")  # the new page
    tab_to("Undo")
    page.keyboard.press("Enter")
    page.wait_for_selector(".banner.ok:has-text('Intake is open.')")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "range":
            break
    else:
        raise AssertionError("no way to the ranges")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('input[name=range]:checked').value") == "1h"


@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/controlplane/agent/", "/admin/controlplane/suggestion/", "/admin/auth/user/"]
)
def test_the_admins_pages_ask_nothing_of_elsewhere_and_break_no_policy(visit, path):
    page = visit(path=path)
    assert "Narrowgauge" in page.title() or page.locator("#content").count() == 1
