"""Generated hostile input over real sockets, at every door: no 5xx of our own, no traceback, no hang.

A 503 that says why and when to come back is an answer, not a failure: a fuzzed deadline cannot be met.
"""

import json
import random
import re
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from controlplane.api.openapi import document
from tests.served import Served, bearer

pytestmark = pytest.mark.slow

HANG_S = 30  # longer than the server's own patience
SILENCE_S = 0.5
EXAMPLES = 12  # of each kind, per operation of the control API
MUTANTS = 150
SCHEMA = schemathesis.openapi.from_dict(document())


@schemathesis.serializer("application/jsonl")
def json_lines(context: Any, value: Any) -> bytes:
    """Three lines of the same, or one."""
    return b"\n".join([json.dumps(value).encode()] * 3)


OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
STEERS = "/control/v1/control/{action}"
LEFT_OUT = ("pause", "drain", "unload", "pause-agent")  # they do what they say, and the other tests would see it


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("fuzz"), "simulated", ("--speed", "200")) as served:
        yield served


@pytest.fixture(scope="module")
def key(server) -> str:
    return server.key("tester", "--scope", "requests", "--scope", "admin")


@pytest.fixture(scope="module")
def browser(server) -> Iterator[httpx.Client]:
    """The administrator's."""
    with httpx.Client(base_url=server.url, timeout=HANG_S, trust_env=False) as client:
        client.get("/login/")
        form = {"username": "admin", "password": server.password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        assert client.post("/login/", data=form).status_code == 302
        yield client


@pytest.fixture(autouse=True)
def nothing_breaks(server) -> Iterator[None]:
    logged = len(server.log)
    yield
    news = server.log[logged:]
    assert "Traceback" not in news and "CRITICAL" not in news, news
    assert server.get("/healthz").status_code == 200


def is_ours(status: int, retry_after: str | None) -> bool:
    """Whether an answer's status says that we broke."""
    return status >= 500 and not (status == 503 and retry_after)


# --- the control API, by its own document ------------------------------------------------------------------------


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_control_api_keeps_to_its_document(server, key, label):
    operation = OPERATIONS[label]
    documented = {int(status) for status in operation.definition.raw["responses"]}

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    def fuzz(case: schemathesis.Case) -> None:
        if operation.path == STEERS and case.path_parameters.get("action") in LEFT_OUT:
            return
        answer = case.call(base_url=server.url, headers=bearer(key), timeout=HANG_S)
        status = answer.status_code
        told = f"{case.as_curl_command()} -> {status} {answer.text[:300]}"
        assert not is_ours(status, answer.headers.get("retry-after", [None])[0]), told
        if status in (404, 405) and status not in documented:
            return  # a fuzzed path that is another one
        assert status in documented, told
        if status >= 400 and "application/json" in str(answer.headers.get("content-type")):
            assert answer.json()["error"]["message"], told

    fuzz()


# --- HTTP itself -------------------------------------------------------------------------------------------------

AUTH = b"Authorization: Bearer %KEY%\r\n"
POST = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n" + AUTH
CHAT = b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"stream":false}'
WHOLE = POST + b"Content-Length: %d\r\n\r\n%s" % (len(CHAT), CHAT)
UPGRADE = (
    b"GET /ws/live HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "line feeds": b"\r\n" * 50,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version nobody has": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a version that is no number": b"GET / HTTP/\xff\r\nHost: x\r\n\r\n",
    "a method that is no text": b"G\xc3\x89T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of symbols": b"<>{} /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long method": b"A" * 5000 + b" / HTTP/1.1\r\n\r\n",
    "a long path": b"GET /" + b"a" * 15000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path too long": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is no ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is no UTF-8": b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a broken escape": b"GET /%zz%4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an absolute address": b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a relative path": b"GET ../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path out of static": b"GET /static/..%2f..%2fsecret.key HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an odd query": b"GET /login/?%ff=%00&&&=&a[]=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query that is no ASCII": b"GET /login/?\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost localhost\r\n\r\n",
    "a header without a name": b"GET /livez HTTP/1.1\r\n: x\r\n\r\n",
    "a space in a header's name": b"GET /livez HTTP/1.1\r\nHo st: x\r\n\r\n",
    "a NUL in a header": b"GET /livez HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "five thousand headers": b"GET /livez HTTP/1.1\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
    "a long header": b"GET /livez HTTP/1.1\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n",
    "two hosts": b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET /login/ HTTP/1.1\r\n\r\n",
    "a host that is no text": b"GET /login/ HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    "Daphne's root path": b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: //evil.example\r\n\r\n",
    "Daphne's root path, no ASCII": b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: \xff\r\n\r\n",
    "odd cookies": b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nCookie: a; =; sessionid=\xff\"; csrftoken=\x80\r\n\r\n",
    "a length that is no number": POST + b"Content-Length: many\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length in other digits": POST + "Content-Length: ٣\r\n\r\nabc".encode(),
    "a huge length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a length beyond digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhello",
    "a length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown encoding": POST + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "chunks of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a huge chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "an endless chunk extension": POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 50_000,
    "a body cut short": POST + b"Content-Length: 1000\r\n\r\n{",
    "a compressed body": POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "a form": b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    "a form with an odd boundary": b"POST /login/ HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=\xff\r\nContent-Length: 5\r\n\r\nhello",
    "a charset nobody has": b"POST /login/ HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded; charset=klingon\r\nContent-Length: 3\r\n\r\na=b",
    "three requests at once": WHOLE * 3,
    "a request in a request": WHOLE + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a WebSocket without a key": UPGRADE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"") + b"\r\n",
    "a WebSocket of another version": UPGRADE.replace(b"13", b"99") + b"\r\n",
    "a WebSocket elsewhere": UPGRADE.replace(b"/ws/live", b"/ws/\xff") + b"\r\n",
    "a WebSocket nowhere": UPGRADE.replace(b"/ws/live", b"/nowhere") + b"\r\n",
    "a WebSocket by POST": UPGRADE.replace(b"GET", b"POST") + b"Content-Length: 3\r\n\r\nabc",
    "a WebSocket of another protocol": UPGRADE + b"Sec-WebSocket-Protocol: \xff, \x01\r\n\r\n",
    "a WebSocket with odd cookies": UPGRADE + b"Cookie: sessionid=\xff; \x80=\r\n\r\n",
    "a WebSocket with an odd origin": UPGRADE.replace(b"http://localhost", b"http://[::1") + b"\r\n",
    "a WebSocket and then noise": UPGRADE + b"\r\n" + bytes(range(256)) * 40,
    "a WebSocket and a huge frame": UPGRADE + b"\r\n\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + b"\x00" * 64,
    "a WebSocket and a reserved bit": UPGRADE + b"\r\n\xf1\x80\x00\x00\x00\x00",
    "a WebSocket and text that is none": UPGRADE + b"\r\n\x81\x82\x00\x00\x00\x00\xff\xfe",
}  # fmt: skip


def said(server: Served, data: bytes, answers: int = 0) -> bytes:
    """What the server says to these bytes, until it closes; after a silence it is told that nothing more comes.

    It drops what it has not answered by then, so nothing counts as silence before this many `answers` are heard.
    Fails on a hang.
    """
    with socket.create_connection(("127.0.0.1", server.port), HANG_S) as connection:
        heard = b""
        with suppress(OSError):  # cut before all was sent: an answer too
            connection.sendall(data)
        try:
            connection.settimeout(HANG_S if answers else SILENCE_S)
            while piece := connection.recv(65536):
                heard += piece
                if len(statuses(heard)) >= answers:
                    connection.settimeout(SILENCE_S)
            return heard
        except TimeoutError:
            pass
        except OSError:
            return heard
        connection.settimeout(HANG_S)
        with suppress(ConnectionError):
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                heard += piece
        return heard


def all_said(server: Served, each: Sequence[bytes]) -> list[list[int]]:
    """The statuses that each got, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda data: statuses(said(server, data)), each))


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", heard)]


def test_malformed_http_is_refused_or_cut(server, key):
    answers = all_said(server, [data.replace(b"%KEY%", key.encode()) for data in MALFORMED.values()])
    got = dict(zip(MALFORMED, answers, strict=True))
    assert {name: each for name, each in got.items() if any(status >= 500 for status in each)} == {}
    assert sum(1 for each in answers if each) > len(MALFORMED) / 2, "most are told what is wrong"
    for name, answers in (("three requests at once", [200, 200, 200]), ("a folded header", [200])):
        data = MALFORMED[name].replace(b"%KEY%", key.encode())
        assert statuses(said(server, data, len(answers))) == answers


def test_daphnes_own_header_does_not_move_our_pages(server):
    heard = said(server, b"GET /agents HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: //evil.example\r\n\r\n", 1)
    assert statuses(heard) == [302] and b"evil.example" not in heard


def test_mutated_requests_are_refused_or_answered(server, key):
    task = b'{"prompt": "hi", "stream": true}'
    head = b"POST /control/v1/tasks HTTP/1.1\r\nHost: localhost\r\n" + AUTH
    whole = [WHOLE, UPGRADE + b"\r\n", head + b"Content-Length: %d\r\n\r\n%s" % (len(task), task)]
    chance = random.Random(7)
    mutants = [_mutated(chance.choice(whole).replace(b"%KEY%", key.encode()), chance) for _ in range(MUTANTS)]
    answers = all_said(server, mutants)
    broken = [(data, each) for data, each in zip(mutants, answers, strict=True) if set(each) & {500, 502, 504}]
    assert not broken and any(200 in each for each in answers)


PIECES = (b"", b"", b"\x00", b"\xff", b"\r\n", b"\r\n\r\n", b" ", b":", b"%", b"0")


def _mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        piece = chance.choice(PIECES) or bytes([chance.randrange(256)]) * 9
        data = data[:place] + piece + data[place + chance.randint(0, 3) :]
    return data


# --- pages -------------------------------------------------------------------------------------------------------

ODD = ("%00", "%ED%A0%80", "x" * 900, "9" * 25, "-1", "..%2f..%2fetc%2fpasswd", "%F0%9F%92%A9", "a%0d%0aSet-Cookie:x=1")
FIELDS = [
    "q",
    "agent",
    "model",
    "status",
    "tier",
    "sort",
    "page",
    "days",
    "since",
    "until",
    "cursor",
    "limit",
    "next",
    "o",
    "all",
]
FORM_FIELDS = (*FIELDS, "action", "target", "name", "reason", "hours", "key")
SOUND = ("debugger", "7")  # for a route's argument
CONVERTERS = {"StringConverter": "str", "SlugConverter": "slug", "IntConverter": "int", "PathConverter": "path"}


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, int]]:
    """(path with {} for its arguments, number of arguments) of every route of ours; the admin's are Django's."""
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if pattern.app_name != "admin":
                yield from routes(pattern, path)
        elif isinstance(pattern, URLPattern):
            for name, converter in pattern.pattern.converters.items():
                path = path.replace(f"<{CONVERTERS[type(converter).__name__]}:{name}>", "{}")
            yield "/" + path, len(pattern.pattern.converters)


def calls(path: str, arguments: int) -> Iterator[tuple[str, str, dict[str, str] | None]]:
    """(method, address, form) of the odd calls of a route."""
    odd_queries = [f"?{'&'.join(f'{field}={odd}' for field in FIELDS)}" for odd in ODD]
    addresses = [path.format(*[value] * arguments) for value in SOUND] if arguments else [path]
    for address in addresses:
        for query in odd_queries:
            yield "GET", address + query, None
        for value in ("\x00", "9" * 25, "٣"):
            yield "POST", address, dict.fromkeys(FORM_FIELDS, value)
    if arguments:
        for odd in ODD:
            yield "GET", path.format(*[odd] * arguments), None
            yield "POST", path.format(*[odd] * arguments), {}


def test_pages_take_odd_addresses_queries_and_forms(server, browser):
    wrong, seen = [], 0
    for path, arguments in routes(get_resolver("controlplane.urls")):
        if path in ("/logout/", "/login/") or path.startswith("/control/v1/"):  # that one is called with a key, above
            continue
        for method, address, form in calls(path, arguments):
            data = None if form is None else {"csrfmiddlewaretoken": browser.cookies["csrftoken"], **form}
            answer = browser.request(method, address, data=data)
            seen += 1
            if is_ours(answer.status_code, answer.headers.get("retry-after")):
                wrong.append((method, address[:200], form, answer.status_code))
    assert seen > 300 and not wrong, wrong


TEXTS = (
    "\u202egnp.exe\u202c",
    "a\u0300" * 500,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 50,
    "\ufdd0\uffff\U0010ffff",
    "a\u0085b\u2028c\u2029d",
    "\ufdfa" * 100,
    "\ufeffhi",
    "\u0130\u0131\u017f\u212a",
    "<script>alert(1)</script>",
    "{{ 7*7 }}{% load x %}",
    "%s%n%x",
    "'; DROP TABLE agent; --",
    "\\u0000",
    "$(id)`id`",
)


def test_odd_unicode_goes_through_and_is_shown_as_it_is(server, key, browser):
    for text in TEXTS:
        body = {"prompt": text, "context": text, "conversation": text[:100], "model": "default"}
        answer = httpx.post(f"{server.url}/control/v1/tasks", json=body, headers=bearer(key), timeout=HANG_S)
        assert answer.status_code == 200, (text, answer.text)
        made = answer.json()["id"]
        server.wait(lambda made=made: browser.get(f"/requests/{made}").status_code == 200, 10)
        page = browser.get(f"/requests/{made}").text
        assert "<script>alert" not in page and "49{%" not in page
        shown = server.get(f"/control/v1/tasks/{made}", headers=bearer(key)).json()
        assert text in shown["prompt_original"]
