"""Streams: early headers, keep-alives, leaving, and that nothing stays open."""

import asyncio

import pytest

from optimizer.core.errors import GenerationFailed, SystemFull
from optimizer.ports import Delta, Waiting
from tests.fake_engine import FakeEngine, Pause, completed, started

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": True}
WAIT = Waiting(3, 12.4, "deepseek-r1:8b is loading")


async def test_headers_go_out_while_waiting_and_comments_keep_the_stream_alive(connect):
    gate = asyncio.Event()
    engine = FakeEngine([WAIT, Pause(gate), Waiting(1, 2.0, "next"), started(), Delta("Hi"), completed("Hi")])
    live = connect(engine, early_headers_s=0.01).open("POST", "/v1/chat/completions", CHAT)
    headers = dict((await live.message())["headers"])
    assert headers[b"x-narrowgauge-queue-position"] == b"3" and headers[b"x-narrowgauge-eta-seconds"] == b"12.400"
    first = (await live.message())["body"]
    assert first == b": queued position=3 eta=12.4s reason=deepseek-r1:8b is loading\n\n"
    gate.set()
    answer = await live.finish()
    assert answer.comments()[1:] == [
        "queued position=1 eta=2.0s reason=next",
        "started model=tinyllama tier=default cache=miss queue=0.2s",
    ]
    assert answer.events()[0]["choices"][0]["delta"]["role"] == "assistant"
    assert answer.events()[-1] == "[DONE]"


async def test_early_headers_already_say_that_the_answer_is_simulated(connect):
    engine = FakeEngine([WAIT, Pause(asyncio.Event())])
    engine.simulated = True
    live = connect(engine, early_headers_s=0.0).open("POST", "/api/chat", CHAT)
    assert dict((await live.message())["headers"])[b"x-narrowgauge-simulated"] == b"true"
    await live.leave()


async def test_a_silent_wait_gets_signs_of_life(connect):
    gate = asyncio.Event()
    engine = FakeEngine([Pause(gate), started(), completed("Hi")])
    live = connect(engine, early_headers_s=0.0, keep_alive_s=0.01).open("POST", "/v1/chat/completions", CHAT)
    assert (await live.message())["status"] == 200
    assert [(await live.message())["body"] for _ in range(3)] == [b": queued\n\n"] * 3
    gate.set()
    assert (await live.finish()).events()[-1] == "[DONE]"


async def test_a_waiting_ndjson_stream_gets_empty_pieces(connect):
    gate = asyncio.Event()
    engine = FakeEngine([WAIT, Pause(gate), started(), Delta("Hi"), completed("Hi")])
    live = connect(engine, early_headers_s=0.0).open("POST", "/api/chat", CHAT)
    assert (await live.message())["status"] == 200
    await live.message()
    gate.set()
    *pieces, last = (await live.finish()).lines()
    assert [(p["model"], p["message"]["content"], p["done"]) for p in pieces] == [
        ("auto", "", False),
        ("tinyllama", "Hi", False),
    ]
    assert last["done"] and last["model"] == "tinyllama"


async def test_a_refusal_after_early_headers_ends_the_stream_with_an_error(connect):
    gate = asyncio.Event()
    engine = FakeEngine([WAIT, Pause(gate), SystemFull("the queue is full", retry_after_s=5)])
    live = connect(engine, early_headers_s=0.0).open("POST", "/v1/chat/completions", CHAT)
    assert (await live.message())["status"] == 200
    gate.set()
    answer = await live.finish()
    assert [event["error"]["code"] for event in answer.events()] == ["system_full"]


async def test_a_refusal_in_time_is_a_proper_http_error(connect):
    engine = FakeEngine([WAIT, SystemFull("the queue is full", retry_after_s=5)])
    answer = await connect(engine).post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize("steps", [[], [WAIT], [started()], [completed("x")], [started(), Delta("a")]])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_an_answer_that_breaks_off_is_an_error_in_either_protocol(connect, path, steps):
    engine = FakeEngine(steps)
    answer = await connect(engine).post(path, CHAT)
    assert b"broke off" in answer.body and engine.running == 0


async def test_an_answer_without_deltas_is_streamed_from_its_end(connect):
    client = connect(FakeEngine([started(cache="exact"), completed("from the cache")]))
    events = (await client.post("/v1/chat/completions", CHAT)).events()
    assert [e["choices"][0]["delta"].get("content") for e in events[:-1]] == ["", "from the cache", None]
    lines = (await client.post("/api/chat", CHAT)).lines()
    assert [line["message"]["content"] for line in lines] == ["from the cache", ""]
    body = {"model": "auto", "prompt": "a", "stream": True}
    events = (await client.post("/v1/completions", body)).events()
    assert [e["choices"][0]["text"] for e in events[:-1]] == ["from the cache"]


async def test_leaving_after_early_headers_stops_the_work(connect):
    engine = FakeEngine([WAIT, Pause(asyncio.Event())])
    live = connect(engine, early_headers_s=0.0).open("POST", "/v1/chat/completions", CHAT)
    await live.message()
    await live.leave()
    assert engine.running == 0 and engine.closed_early == 1


async def test_leaving_one_of_several_prompts_stops_all(connect):
    gate = asyncio.Event()
    engine = FakeEngine([started(), Delta("a"), Pause(gate), completed("a")])
    body = {"model": "auto", "prompt": ["a", "b", "c"], "stream": True}
    live = connect(engine).open("POST", "/v1/completions", body)
    await live.message()
    await engine.until_running(3)
    await live.leave()
    assert engine.running == 0


async def test_one_failure_of_several_prompts_ends_all(connect):
    def script(request):
        if request.messages[-1].content == "bad":
            return [started(), GenerationFailed("no")]
        return [started(), Delta("a"), Pause(asyncio.Event()), completed("a")]

    engine = FakeEngine(script)
    answer = await connect(engine).post("/v1/completions", {"model": "auto", "prompt": ["a", "bad", "c"]})
    assert answer.status == 502 and engine.running == 0


async def test_a_server_that_stops_closes_the_work(connect):
    engine = FakeEngine([started(), Delta("a"), Pause(asyncio.Event())])
    live = connect(engine).open("POST", "/api/chat", CHAT)
    await live.message()
    live.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await live.task
    assert engine.running == 0


async def test_a_slow_reader_holds_back_only_its_own_generation(connect):
    engine = FakeEngine([started(), *(Delta(str(n)) for n in range(100)), completed("x")])
    client = connect(engine)
    stuck = asyncio.Event()
    sent = []

    async def slow_send(message):
        sent.append(message)
        if len(sent) > 3:
            await stuck.wait()

    live = client.open("POST", "/api/chat", CHAT)
    incoming: asyncio.Queue = asyncio.Queue()
    incoming.put_nowait(
        {"type": "http.request", "body": b'{"model":"auto","messages":[{"role":"user","content":"a"}]}'}
    )
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": [(b"authorization", b"Bearer good-key")]}
    slow = asyncio.ensure_future(client.app(scope, incoming.get, slow_send))
    assert (await live.finish()).lines()[-1]["done"]
    assert len(sent) == 4 and engine.running == 1
    incoming.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(slow, 5)
    assert engine.running == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/completions"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_whole_answer_is_never_closed_as_if_it_were_cancelled(client, engine, path, streamed):
    for prompt in ("a", ["a", "b"]) if path == "/v1/completions" else ("a",):
        assert (await client.post(path, {**CHAT, "prompt": prompt, "stream": streamed})).status == 200
    assert engine.requests and engine.closed_early == 0 and engine.running == 0


async def test_a_failure_after_the_last_piece_is_logged_and_not_sent(connect, caplog):
    client = connect(FakeEngine([started(), completed("ok"), ZeroDivisionError("late")]))
    lines = (await client.post("/api/chat", CHAT)).lines()
    assert lines[-1]["done"] and len(caplog.records) == 1
