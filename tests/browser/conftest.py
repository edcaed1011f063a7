"""A real Chromium against a real `manage.py up` with the simulated card."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.served import Served, bearer, manage

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PASSWORD = "a long enough one"
PEOPLE = """
from django.contrib.auth.models import Group, User
for role in ("viewer", "operator"):
    User.objects.create_user(role, password="%s").groups.add(Group.objects.get(name=role))
"""


@pytest.fixture(scope="module")  # not longer: while it is open its event loop runs, and no async test can
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("NARROWGAUGE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install one, or set NARROWGAUGE_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    return (Path(spec.origin).parent / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("browser"), "simulated", ("--speed", "20")) as served:
        made = manage("shell", "-c", PEOPLE % PASSWORD, "--data-dir", str(served.data_dir))
        assert made.returncode == 0, made.stderr
        yield served


@pytest.fixture(scope="session")
def key(server) -> str:
    return server.key("debugger", "--scope", "requests", "--scope", "admin")


@pytest.fixture(scope="session")
def ask(server, key):
    """Ask the server as an agent; returns the answer's data."""

    def post(prompt: str, model: str = "default", **rest) -> dict:
        answer = httpx.post(
            f"{server.url}/control/v1/tasks",
            json={"prompt": prompt, "model": model, **rest},
            headers=bearer(key),
            timeout=120,
            trust_env=False,
        )
        return answer.json()

    return post


@pytest.fixture(scope="session")
def sessions() -> dict[str, dict]:
    """Signed-in states by person, so that each signs in once."""
    return {}


@pytest.fixture
def visit(chromium, server, sessions):
    """`visit("viewer", "/agents")`: a page of that person; what a page must not do fails the test at its end."""
    contexts, faults = [], []

    def open_page(person: str = "admin", path: str = "/", **options):
        of, forgive = options.pop("server", server), options.pop("forgive", "nothing")
        if of is server and person in sessions:
            options["storage_state"] = sessions[person]
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        watch(page, faults, forgive)
        page.goto(of.url + path)
        if page.locator("#id_username").count():
            page.fill("#id_username", person)
            page.fill("#id_password", of.password if person == "admin" else PASSWORD)
            page.click("button.primary")
            page.wait_for_selector("nav")
            if of is server:
                sessions[person] = context.storage_state()
            if page.url != of.url + path:
                page.goto(of.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults, faults


def watch(page, faults: list[str], forgive: str) -> None:
    """Note console errors, script errors, refusals by the content security policy, and requests to elsewhere.

    `forgive`: part of a console error that the test brings about on purpose.
    """

    def said(message) -> None:
        if message.type == "error" and forgive not in message.text:
            faults.append(f"console: {message.text} {message.location.get('url')}")

    page.on("console", said)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on(
        "request",
        lambda request: (
            urlsplit(request.url).hostname not in ("127.0.0.1", "localhost", None) and faults.append(request.url)
        ),
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP ' + e.violatedDirective + e.blockedURI))"
    )


def serious(page, source: str) -> list[str]:
    """What axe finds wrong on a page: rule, element, why."""
    page.evaluate(source)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations))")
    return [
        f"{violation['id']} ({violation['impact']}): {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for violation in json.loads(found)
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]
