"""Hostile and odd input over real sockets, and clients that leave at every phase: nothing breaks, nothing leaks."""

import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.served import Served, bearer

pytestmark = pytest.mark.slow

LONG = "The quick auditor noted a different ledger entry on page " + " ".join(
    f"{n} of volume {n * 7}," for n in range(400)
)
DOORS = {
    "/v1/chat/completions": lambda text, model, stream: {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1500, "stream": stream,
    },
    "/v1/completions": lambda text, model, stream: {
        "model": model, "prompt": text, "max_tokens": 1500, "stream": stream,
    },
    "/api/chat": lambda text, model, stream: {
        "model": model, "messages": [{"role": "user", "content": text}], "stream": stream,
        "options": {"num_predict": 1500},
    },
    "/api/generate": lambda text, model, stream: {
        "model": model, "prompt": text, "stream": stream, "options": {"num_predict": 1500},
    },
    "/control/v1/tasks": lambda text, model, stream: {
        "model": model, "prompt": text, "stream": stream, "max_tokens": 1500,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("hostile"), "simulated", ("--speed", "2")) as served:
        yield served


@pytest.fixture(scope="module")
def key(server) -> str:
    return server.key("tester", "--scope", "requests", "--scope", "admin")


@pytest.fixture(autouse=True)
def nothing_breaks_or_leaks(server, key) -> Iterator[None]:
    logged = len(server.log)
    yield
    server.wait(lambda: idle(status(server, key)), 30)
    news = server.log[logged:]
    assert "Traceback" not in news and "CRITICAL" not in news, news
    assert server.get("/healthz").status_code == 200


def status(server: Served, key: str) -> dict:
    return server.get("/control/v1/status", headers=bearer(key)).json()


def idle(now: dict) -> bool:
    return not now["waiting"] and not any(slot["job_id"] for slot in now["slots"])


def ended(server: Served, key: str) -> dict[str, int]:
    return status(server, key)["ended"]


def send(server: Served, key: str, path: str, body: object) -> socket.socket:
    """A request on a socket of its own, sent and left open."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), 30)
    connection.sendall(head.encode() + data)
    return connection


def raw(server: Served, data: bytes) -> http.client.HTTPResponse:
    connection = socket.create_connection(("127.0.0.1", server.port), 30)
    with connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        return answer


# --- bodies that are wrong -------------------------------------------------------------------------------------

ENDPOINTS = [*DOORS, "/v1/embeddings", "/api/embed", "/api/embeddings", "/api/show"]
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a number": b"7",
    "null": b"null",
    "not UTF-8": b'{"model": "\xff"}',
    "NaN": b'{"model": "tinyllama", "temperature": NaN, "options": {"temperature": NaN}}',
    "infinity": b'{"model": "tinyllama", "max_tokens": 1e999, "options": {"num_predict": 1e999}}',
    "a huge integer": b'{"model": "tinyllama", "seed": ' + b"9" * 5000 + b"}",
    "deep arrays": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a NUL": b'{"model": "tiny\\u0000llama", "prompt": "x"}',
    "a NUL in the text": b'{"model":"tinyllama","prompt":"a\\u0000b","input":"a\\u0000b",'
    b'"messages":[{"role":"user","content":"a\\u0000b"}]}',
    "half a surrogate pair": b'{"model":"tinyllama","prompt":"\\ud800","input":"\\ud800",'
    b'"messages":[{"role":"user","content":"\\ud800"}]}',
    "a key twice": b'{"model": "tinyllama", "model": "tinyllama"}',
    "an unknown model": b'{"model":"gpt-99","prompt":"x","input":"x","messages":[{"role":"user","content":"x"}]}',
    "a model that is a list": b'{"model":["x"],"prompt":"x","input":"x","messages":[{"role":"user","content":"x"}]}',
    "texts of a wrong type": b'{"model":"tinyllama","prompt":{"a":1},"input":{"a":1},"messages":"x"}',
    "messages of a wrong type": b'{"model":"tinyllama","prompt":7,"input":7,"messages":[7]}',
    "a role nobody has": b'{"model":"tinyllama","prompt":[],"input":[[]],"messages":[{"role":"king","content":"x"}]}',
    "content of a wrong type": b'{"model":"tinyllama","prompt":[7.5],"input":[7.5],'
    b'"messages":[{"role":"user","content":7}]}',
    "limits of a wrong type": b'{"model":"tinyllama","prompt":"x","input":7,"messages":[{"role":"user","content":"x"}],'
    b'"max_tokens":"many","options":{"num_predict":"many"}}',
    "limits out of range": b'{"model":"tinyllama","prompt":"x","input":[],"messages":[{"role":"user","content":"x"}],'
    b'"max_tokens":-7,"temperature":99,"options":{"num_predict":-77,"temperature":99}}',
}
NO_SUCH_FIELD = ("limits", "texts", "messages", "a role", "content", "a NUL in the text")  # /api/show has none of these


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_wrong_body_is_refused_in_the_protocols_shape(server, key, path):
    wrong = []
    for name, data in BODIES.items():
        if path == "/api/show" and name.startswith(NO_SUCH_FIELD):
            continue
        answer = httpx.post(
            server.url + path,
            content=data,
            headers={**bearer(key), "Content-Type": "application/json"},
            timeout=30,
            trust_env=False,
        )
        if not 400 <= answer.status_code < 500:
            wrong.append((name, answer.status_code, answer.text[:160]))
            continue
        error = answer.json()["error"]
        message = error if path.startswith("/api") else error["message"]
        if not message or answer.headers.get("x-request-id", "") == "":
            wrong.append((name, answer.status_code, answer.text[:160]))
    assert not wrong


# --- HTTP itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*ENDPOINTS, "/v1/models", "/api/tags", "/api/ps", "/control/v1/agents"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_no_method_breaks_anything(server, key, path, method):
    answer = httpx.request(method, server.url + path, headers=bearer(key), timeout=30, trust_env=False)
    assert answer.status_code < 500, (method, path, answer.text[:300])
    assert answer.status_code != 405 or answer.headers["allow"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=%C2%B2",
        "limit=-1",
        "limit=9999999999999999999999",
        "status=%00",
        "agent=%00",
        "agent=%ED%A0%80",
        "status=x",
    ],
)
def test_odd_queries_are_not_our_fault(server, key, query):
    assert server.get(f"/control/v1/tasks?{query}", headers=bearer(key)).status_code < 500


@pytest.mark.parametrize("path", ["tasks/%00", "tasks/..%2f..", "agents/%00", "agents/%ff", "tasks/" + "x" * 5000, "x"])
def test_odd_paths_are_not_found(server, key, path):
    assert server.get(f"/control/v1/{path}", headers=bearer(key)).status_code in (400, 404)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer \xff\xfe", "Bearer " + "x" * 9000])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/api/chat", "/control/v1/tasks"])
def test_a_wrong_key_is_401_whatever_it_is_made_of(server, path, header):
    method = "GET" if path == "/v1/models" else "POST"
    data = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {header}\r\nContent-Length: 0\r\n\r\n"
    answer = raw(server, data.encode("latin-1"))
    assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", DOORS)
def test_chunked_bodies_and_expect_are_understood(server, key, path):
    data = json.dumps(DOORS[path](f"a short chunked question to {path}", "tinyllama", False)).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
    half = len(data) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (data[:half], data[half:], b""))
    assert raw(server, head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).status == 200
    expecting = head + f"Expect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(expecting.encode())
        assert b" 100 " in connection.recv(100)
        connection.sendall(data)
        assert b" 200 " in connection.recv(100)


@pytest.mark.parametrize("path", DOORS)
def test_a_body_that_is_too_big_is_413(server, key, path):
    data = b'{"model": "tinyllama", "prompt": "' + b"x" * (40 << 20) + b'"}'
    answer = httpx.post(server.url + path, content=data, headers=bearer(key), timeout=60, trust_env=False)
    assert answer.status_code == 413, answer.text[:200]
    assert answer.json()["error"]


@pytest.mark.parametrize("path", DOORS)
def test_a_long_prompt_is_answered_and_holds_nobody_up(server, key, path):
    text = LONG * 60  # 600 kB
    with send(server, key, path, DOORS[path](text, "tinyllama", False)) as connection:
        assert server.get("/livez").elapsed.total_seconds() < 5
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (200, 400), answer.read()


# --- clients that leave ----------------------------------------------------------------------------------------


def phase(now: dict, model: str) -> str:
    """Where a request for `model` is, by the status page."""
    for slot in now["slots"]:
        if slot.get("model") == model:
            return slot["phase"]
    return "waiting" if now["waiting"] else ""


def leave_when(server: Served, key: str, path: str, body: dict, model: str, wanted: str) -> None:
    before = ended(server, key)
    with send(server, key, path, body) as connection:
        server.wait(lambda: phase(status(server, key), model) == wanted, 40)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    server.wait(lambda: idle(status(server, key)), 20)
    server.wait(lambda: sum(ended(server, key).values()) > sum(before.values()), 5)
    after = ended(server, key)
    assert after.get("cancelled", 0) == before.get("cancelled", 0) + 1, (before, after)
    assert sum(after.values()) == sum(before.values()) + 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", DOORS)
def test_a_client_that_leaves_during_load_prefill_or_decode_leaves_nothing_behind(server, key, path, stream):
    tag = f"{path} {stream}"
    evicted(server, key, "deepseek-r1:8b")
    leave_when(server, key, path, DOORS[path](f"{tag} load {LONG}", "opus", stream), "deepseek-r1:8b", "waiting")
    for wanted in ("prefill", "decode"):
        body = DOORS[path](f"{tag} {wanted} {LONG}", "opus", stream)
        leave_when(server, key, path, body, "deepseek-r1:8b", wanted)


def evicted(server: Served, key: str, model: str) -> None:
    """Load what pushes `model` out."""
    body = {"model": "sonnet", "prompt": "hello", "max_tokens": 1, "cache": False}
    httpx.post(f"{server.url}/control/v1/tasks", json=body, headers=bearer(key), timeout=60, trust_env=False)
    server.wait(lambda: model not in {r["model"] for r in status(server, key)["vram"]["residents"]}, 20)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_fifty_clients_that_leave_at_once_are_all_recorded_and_free_everything(server, key, stream):
    before = sum(ended(server, key).values())
    paths = list(DOORS)
    bodies = [(paths[i % 5], DOORS[paths[i % 5]](f"crowd {stream} {i} {LONG}", "opus", stream)) for i in range(50)]
    connections = [send(server, key, path, body) for path, body in bodies]
    server.wait(lambda: status(server, key)["waiting"] >= 40, 60)
    for connection in connections:
        connection.close()
    server.wait(lambda: idle(status(server, key)), 20)
    server.wait(lambda: sum(ended(server, key).values()) == before + 50, 10)


def test_a_slow_reader_holds_nobody_up(server, key):
    with send(server, key, "/api/chat", DOORS["/api/chat"](f"slow reader {LONG}", "tinyllama", True)) as connection:
        connection.recv(10)
        for number in range(5):
            body = DOORS["/api/chat"](f"meanwhile {number}", "tinyllama", False)
            answer = httpx.post(server.url + "/api/chat", json=body, headers=bearer(key), timeout=30, trust_env=False)
            assert answer.status_code == 200


def test_a_slow_sender_is_answered(server, key):
    data = json.dumps(DOORS["/api/chat"]("one byte at a time", "tinyllama", False)).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        for byte in head.encode() + data:
            connection.send(bytes([byte]))
        assert b" 200 " in connection.recv(100)
