"""Clients that send too slowly, under the real server: cut in time, while honest ones are left alone."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

pytestmark = pytest.mark.slow

IDLE_S, HEAD_S, BYTES_PER_S = 1.6, 0.8, 1000.0
HEAD = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer good-key\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.wire_server", str(IDLE_S), str(HEAD_S), str(BYTES_PER_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.terminate()
        server.stdout.close()


@pytest.fixture
def connection(port) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as made:
        yield made


def body(text: str) -> bytes:
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}], "stream": False}).encode()


def drip(connection: socket.socket, data: bytes, every_s: float) -> bytes:
    """Send byte by byte until all is out or the other side has had enough; what it said."""
    connection.settimeout(every_s)
    said = b""
    with suppress(ConnectionError):
        for byte in data:
            connection.send(bytes([byte]))
            with suppress(TimeoutError):
                piece = connection.recv(4096)
                if not piece:
                    break
                said += piece
    return said


def answer(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    with suppress(ConnectionError):
        return connection.recv(65536)
    return b""


LENGTH, CHUNKED = HEAD + b"Content-Length: 2000\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "a request line": (b"", b"x" * 400),
    "headers": (b"POST /api/chat HTTP/1.1\r\n", b"x" * 400),
    "a header's value": (HEAD + b"X-Long: ", b"x" * 400),
    "a body": (LENGTH, b"x" * 400),
    "a chunked body": (CHUNKED, b"1\r\nx\r\n" * 100),
    "a body that never comes": (LENGTH, b""),
    "nothing at all": (b"", b""),
}


def test_whatever_drips_is_cut_in_time(port):
    def one(case: tuple[bytes, bytes]) -> tuple[float, bytes]:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(case[0])
            began = time.monotonic()
            said = drip(connection, case[1], 0.05) or answer(connection)
            return time.monotonic() - began, said

    with ThreadPoolExecutor(len(DRIPS)) as pool:
        cut = dict(zip(DRIPS, pool.map(one, DRIPS.values()), strict=True))
    slowest_s = {name: took_s for name, (took_s, _) in cut.items()}
    assert all(HEAD_S * 0.8 < took_s < HEAD_S * 8 for took_s in slowest_s.values()), slowest_s
    assert slowest_s["nothing at all"] > IDLE_S * 0.8
    for name, (_, said) in cut.items():
        assert b" 408 " in said.split(b"\r\n")[0] or (name in ("a request line", "nothing at all") and not said), name


def test_a_long_body_that_keeps_the_pace_is_answered(connection):
    data = body("x" * 6000)
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data))
    began = time.monotonic()
    for start in range(0, len(data), 500):
        connection.sendall(data[start : start + 500])
        time.sleep(0.2)  # 2,500 bytes a second: slow, and faster than it must be
    assert time.monotonic() - began > 2 * HEAD_S
    assert b" 200 " in answer(connection)


def test_an_answer_may_take_longer_than_any_patience_and_the_connection_is_used_again(connection):
    data = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "forever"}]}).encode()
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    until = time.monotonic() + IDLE_S + HEAD_S
    connection.sendall(b"GET /livez HTTP/1.1\r\n")  # the next request begins while this one is answered
    while time.monotonic() < until:
        assert connection.recv(65536), "still streaming"


def test_a_kept_connection_has_its_patience_anew_for_each_request(connection):
    data = body("hi")
    for _ in range(3):
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        assert b" 200 " in answer(connection)
        time.sleep(HEAD_S)  # longer than a head may take, shorter than a connection may idle
