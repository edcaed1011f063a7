"""The wire under the real server: what only sockets can show."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import ollama
import openai
import pytest

pytestmark = pytest.mark.slow

KEY = {"Authorization": "Bearer good-key"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.wire_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.terminate()
        server.stdout.close()


@pytest.fixture
async def http(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=KEY, connector=connector) as session:
        yield session


def chat(text: str, stream: bool = True) -> dict:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": stream}


async def open_requests(http: aiohttp.ClientSession) -> int:
    async with http.post("/api/chat", json=chat("count", stream=False)) as answer:
        return int((await answer.json())["message"]["content"])


async def until_open(http: aiohttp.ClientSession, count: int) -> None:
    async with asyncio.timeout(5):
        while await open_requests(http) != count:
            await asyncio.sleep(0.02)


def test_the_official_clients_stream_over_a_socket(port):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="good-key") as client:
        chunks = list(client.chat.completions.create(model="auto", messages=chat("hi")["messages"], stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "You said: hi"
    with ollama.Client(f"http://127.0.0.1:{port}", headers=KEY) as client:
        pieces = list(client.chat("auto", chat("hi")["messages"], stream=True))
        assert "".join(p.message.content or "" for p in pieces) == "You said: hi"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_tokens_arrive_as_they_are_made_and_leaving_stops_them(http, path):
    async with http.post(path, json=chat("forever")) as answer:
        for _ in range(3):
            assert await answer.content.readline()
        await until_open(http, 1)
        answer.close()
    await until_open(http, 0)


async def test_leaving_an_unstreamed_request_stops_it(http):
    task = asyncio.ensure_future(http.post("/v1/chat/completions", json=chat("forever", stream=False)))
    await until_open(http, 1)
    task.cancel()
    await until_open(http, 0)


async def test_fifty_streams_at_once_never_mix(http):
    async def one(n: int) -> None:
        async with http.post("/v1/chat/completions", json=chat(f"forever {n} ")) as answer:
            seen = 0
            async for line in answer.content:
                if line.startswith(b"data: "):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    if delta["content"]:
                        assert delta["content"] == f"forever {n} "
                        seen += 1
                if seen == 5:
                    answer.close()
                    return

    await asyncio.gather(*(one(n) for n in range(50)))
    await until_open(http, 0)


async def test_a_slow_reader_does_not_block_others(http):
    async with http.post("/api/chat", json=chat("forever")):  # never read
        for n in range(20):
            async with http.post("/api/chat", json=chat(f"{n}", stream=False)) as answer:
                assert (await answer.json())["message"]["content"] == f"You said: {n}"
    await until_open(http, 0)


async def test_a_chunked_body_without_a_length_is_read(http):
    async def pieces() -> AsyncIterator[bytes]:
        data = json.dumps(chat("in pieces", stream=False)).encode()
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    async with http.post("/api/chat", data=pieces()) as answer:
        assert (await answer.json())["message"]["content"] == "You said: in pieces"


async def test_expect_100_continue_is_answered(http):
    async with http.post("/api/chat", json=chat("hi", stream=False), expect100=True) as answer:
        assert answer.status == 200


async def test_a_body_of_twenty_megabytes_passes(http):
    body = io.BytesIO(json.dumps(chat("x" * 20_000_000, stream=False)).encode())
    async with http.post("/api/chat", data=body) as answer:
        assert answer.status == 200 and len(await answer.read()) > 20_000_000


async def test_a_head_probe_has_no_body(http):
    async with http.head("/api/tags", headers={"Authorization": ""}) as answer:
        assert answer.status == 200 and await answer.read() == b""


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_beyond_the_limit_is_413_and_not_kept(http, chunked):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1_000_000

    data = pieces() if chunked else io.BytesIO(b"x" * 70_000_000)
    async with http.post("/v1/chat/completions", data=data) as answer:
        assert answer.status == 413 and (await answer.json())["error"]["code"] == "request_too_large"
    async with http.post("/api/chat", json=chat("still here", stream=False)) as answer:
        assert answer.status == 200


async def test_a_form_encoded_body_is_json_all_the_same(http):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    async with http.post("/api/chat", data=json.dumps(chat("a=1&b", stream=False)), headers=headers) as answer:
        assert (await answer.json())["message"]["content"] == "You said: a=1&b"
