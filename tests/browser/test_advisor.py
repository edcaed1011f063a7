"""The advisor's page in a real browser: asked for, watched, answered."""

import pytest

from tests.browser.conftest import serious

pytestmark = pytest.mark.slow


def test_advice_is_asked_for_watched_and_read(visit, axe):
    page = visit("operator", "/advisor")
    page.click("text=Work it out")
    page.wait_for_selector("#busy:not([hidden])", timeout=20_000)
    page.wait_for_function("() => document.getElementById('far').value > 0", timeout=240_000)
    page.wait_for_selector("#answers-title", timeout=300_000)  # the page comes back by itself
    text = page.locator("main").inner_text()
    assert "a deepseek-r1:8b quantisation of at most" in text and "The last time" not in text
    assert "because only" in text  # it says that the traffic was built in
    assert serious(page, axe) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways on a phone"
