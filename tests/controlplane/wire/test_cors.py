"""Which pages may call."""

import pytest

from controlplane.wire.cors import DEFAULT_ORIGINS, Origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("http://localhost:5173", True),
        ("https://127.0.0.1:8443", True),
        ("http://[::1]:80", True),
        ("app://obsidian.md", True),
        ("http://localhost.evil.com", False),
        ("http://localhost:80.evil.com", False),
        ("https://example.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_the_default_is_this_machine_on_any_port(origin, allowed):
    assert Origins(DEFAULT_ORIGINS).allows(origin) is allowed


async def test_other_pages_get_no_cors_headers_and_no_preflight(client):
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert (await client("OPTIONS", "/v1/chat/completions", headers=headers, key="")).status == 403
    answer = await client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_allowed_pages_can_read_errors_and_our_headers(client):
    answer = await client.get("/v1/models", key="bad", headers={"origin": "http://localhost:3000"})
    assert answer.status == 401 and answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-narrowgauge-model" in answer.headers["access-control-expose-headers"]


async def test_origins_can_be_chosen(connect, engine):
    client = connect(engine, allowed_origins=["https://agents.example"])
    answer = await client.get("/v1/models", headers={"origin": "https://agents.example"})
    assert answer.headers["access-control-allow-origin"] == "https://agents.example"
    assert (
        "access-control-allow-origin"
        not in (await client.get("/v1/models", headers={"origin": "http://localhost"})).headers
    )


async def test_options_without_a_page_lists_the_methods(client):
    answer = await client("OPTIONS", "/api/chat", key="")
    assert (answer.status, answer.headers["allow"]) == (204, "POST, OPTIONS")
