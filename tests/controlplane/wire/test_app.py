"""Which requests are the wire's, and bodies in pieces."""

import asyncio

import pytest

from controlplane.wire import WireApp

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("method", "path", "accept", "ours"),
    [
        ("POST", "/v1/chat/completions", "", True),
        ("GET", "/v1", "", True),
        ("GET", "/api", "", True),
        ("GET", "/api/nothing", BROWSER, True),
        ("GET", "/healthz", "", True),
        ("GET", "/livez", "", True),
        ("GET", "/", "", True),
        ("HEAD", "/", "*/*", True),
        ("GET", "/", "application/json", True),
        ("GET", "/", "text/plain, text/html;q=0.5", True),
        ("GET", "/", BROWSER, False),
        ("GET", "/", "text/html;q=oops", True),
        ("POST", "/", "", False),
        ("GET", "/v1x", "", False),
        ("GET", "/apixyz", "", False),
        ("GET", "/control/v1/agents", "", False),
        ("GET", "/admin/", BROWSER, False),
    ],
)
def test_the_wire_claims_its_paths_and_leaves_pages_to_django(method, path, accept, ours):
    headers = [(b"Accept", accept.encode())] if accept else []
    assert WireApp.handles(path, method, headers) is ours


def live_with(client, *pieces, headers=None):
    live = client.open("POST", "/api/chat", b"", headers=headers)
    live.incoming.get_nowait()
    for piece in pieces:
        live.incoming.put_nowait(piece)
    return live


async def test_a_body_in_pieces_is_put_together(client):
    pieces = [b'{"model":"auto","messages":[', b'{"role":"user","content":"hi"}],"stream":false', b"}"]
    messages = [{"type": "http.request", "body": p, "more_body": p != b"}"} for p in pieces]
    assert (await live_with(client, *messages).finish()).json()["message"]["content"] == "You said: hi"


async def test_a_body_that_grows_beyond_the_limit_is_413_before_it_ends(connect, engine):
    client = connect(engine, max_body_bytes=10)
    live = live_with(client, {"type": "http.request", "body": b"x" * 11, "more_body": True})
    assert (await live.finish()).status == 413


async def test_a_declared_length_beyond_the_limit_is_413_unread(connect, engine):
    client = connect(engine, max_body_bytes=10)
    live = client.open("POST", "/api/chat", b"", headers={"content-length": "9" * 30})
    assert (await live.finish()).status == 413 and live.incoming.qsize() == 1


async def test_a_length_that_is_no_number_is_400(client):
    assert (await client.post("/api/chat", b"{}", headers={"content-length": "ten"})).status == 400


async def test_a_compressed_body_is_415(client):
    assert (await client.post("/api/chat", b"{}", headers={"content-encoding": "gzip"})).status == 415


async def test_a_client_that_leaves_while_sending_is_no_error(client, engine, caplog):
    live = live_with(client, {"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"})
    await asyncio.wait_for(live.task, 5)
    assert live.outgoing.empty() and not engine.requests and not caplog.records


async def test_nothing_of_a_request_stays_behind(client):
    before = asyncio.all_tasks()
    for path in ("/v1/chat/completions", "/api/chat"):
        await client.post(path, {"model": "auto", "messages": [{"role": "user", "content": "hi"}]})
    await client.post("/v1/completions", {"model": "auto", "prompt": ["a", "b"]})
    assert asyncio.all_tasks() == before


async def test_a_disconnect_after_the_end_is_no_cancel(client):
    live = client.open("POST", "/api/chat", {"model": "auto", "messages": [{"role": "user", "content": "hi"}]})

    async def send(message):
        live.outgoing.put_nowait(message)
        if not message.get("more_body", True):
            live.incoming.put_nowait({"type": "http.disconnect"})
            for _ in range(3):
                await asyncio.sleep(0)

    live.task.cancel()
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": [(b"authorization", b"Bearer good-key")]}
    task = asyncio.ensure_future(client.app(scope, live.incoming.get, send))
    await asyncio.wait_for(task, 5)
    assert not task.cancelled()
