"""Two nodes on the overview: both are shown, and one is drained and taken back."""

import pytest

from tests.browser.conftest import serious
from tests.served import Served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("nodes"), "simulated", ("--speed", "20", "--nodes", "2")) as served:
        yield served


def test_every_node_shows_its_slots_and_memory_and_can_be_drained(visit, two_nodes, axe):
    page = visit(server=two_nodes)
    page.wait_for_selector("#nodes .runs li >> nth=3")
    text = page.locator("#nodes").inner_text()
    assert "simulated-2" in text and "slot 4: free" in text and text.count("of 3686 MB") == 2
    assert page.locator("#slots .slot").count() == 4
    assert not serious(page, axe)
    page.click("#nodes > li:has-text('simulated-2') button")
    page.click("#confirm button.primary")
    page.wait_for_selector("#nodes > li:has-text('drained')", timeout=10_000)
    page.click("#nodes > li:has-text('simulated-2') button")
    page.click("#confirm button.primary")
    page.wait_for_selector("#nodes > li:has-text('simulated-2') .good", timeout=10_000)


def test_one_node_needs_no_list(visit):
    page = visit()
    page.wait_for_selector("#models li")
    assert page.locator("#nodes-card").is_hidden()
