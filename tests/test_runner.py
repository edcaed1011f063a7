"""The runner in real time on the simulated card, a hundred times faster."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from optimizer import combiner
from optimizer.backends.simulated import SimulatedBackend
from optimizer.core import events
from optimizer.core.caching import CacheEntry
from optimizer.core.errors import (
    AgentLimit,
    BackendUnavailable,
    Cancelled,
    GenerationFailed,
    IntakePaused,
    ModelNotFound,
)
from optimizer.core.request import AgentProfile, Kind, Message, Request, Task
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.pipeline import Pipeline
from optimizer.ports import Completed, Delta, Finished, Record, Reply, Started, Waiting
from optimizer.runner import Runner

SPEED = 100.0
AGENTS = {slug: AgentProfile(slug, "default") for slug in ("a", "b", "c")}
AGENTS["grouped-1"] = AgentProfile("grouped-1", "default", cache_group="team")
AGENTS["grouped-2"] = AgentProfile("grouped-2", "default", cache_group="team")


class Memory:
    """Record and cache store of a test."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.cached: list[CacheEntry] = []

    def save(self, record: Record) -> None:
        self.records.append(record)

    def put(self, entry: CacheEntry) -> None:
        self.cached.append(entry)

    def delete(self, keys: Sequence[str]) -> None:
        pass


class House:
    """A runner with its parts at hand."""

    def __init__(self, thresholds: Thresholds = Thresholds(), speed: float = SPEED, backend: Any = None) -> None:
        self.backend = backend or SimulatedBackend(speed=speed, probe_timeout_s=0.2)
        self.memory = Memory()
        pipeline = Pipeline(
            catalogue=STRATEGY_CATALOGUE, thresholds=thresholds, count=lambda text: len(text.split()), embed=None
        )
        self.runner = Runner(
            backend=self.backend, pipeline=pipeline, agents=AGENTS, records=self.memory, cache_store=self.memory
        )

    async def ask(self, text: str = "Say hello", **rest: object) -> list[Reply]:
        async with aclosing(self.runner.submit(request(text, **rest))) as replies:
            return [reply async for reply in replies]


_number = iter(range(1_000_000))


def request(text: str = "Say hello", *, agent: str = "a", model: str = "tinyllama", **rest: object) -> Request:
    fields = {"kind": Kind.CHAT, "messages": (Message("user", text),), "wanted": model, **rest}
    return Request(id=f"r{next(_number)}", agent=agent, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House(changed(Thresholds(), {"batch_window_ms": 1}))
    await made.runner.start()
    yield made
    await made.runner.close()


@pytest.fixture
async def slow_house() -> AsyncIterator[House]:
    """Slow enough for a generation to be caught in the act."""
    made = House(changed(Thresholds(), {"batch_window_ms": 1}), speed=8.0)
    await made.runner.start()
    yield made
    await made.runner.close()


async def until(condition, seconds: float = 5.0) -> None:
    """Wait for a condition without a fixed sleep's guess."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_request_waits_starts_streams_and_completes_once(house):
    replies = await house.ask()
    kinds = [type(reply) for reply in replies]
    assert kinds[0] is Waiting and Started in kinds and Delta in kinds
    assert kinds.count(Completed) == 1 and kinds[-1] is Completed
    assert replies[-1].text == "".join(r.text for r in replies if isinstance(r, Delta))
    started = next(r for r in replies if isinstance(r, Started))
    assert started.model == "tinyllama" and started.simulated
    assert [d.stage for d in started.decisions] == ["selection", "generation", "cache", "compression", "context"]
    [record] = house.memory.records
    assert record.status == "replied" and record.output_tokens > 0 and record.answer == replies[-1].text


async def test_the_three_tiers_are_loaded_and_evicted_in_turn(house):
    for tier in ("default", "sonnet", "opus", "default"):
        replies = await house.ask(f"Say hello in {tier}", model=tier)
        assert next(r for r in replies if isinstance(r, Started)).tier == tier
    kinds = [bar.kind for bar in house.runner.journal.bars]
    assert kinds.count("load") >= 3 and "evict" in kinds


async def test_an_unknown_model_is_refused_before_anything_starts(house):
    with pytest.raises(ModelNotFound, match="not found"):
        await house.ask(model="gpt-7")
    assert house.memory.records[0].status == "rejected"


async def test_never_more_than_two_run_at_once(house):
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(house.runner.running()))
            await asyncio.sleep(0.001)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(house.ask(f"question {n}", agent="abc"[n % 3]) for n in range(12)))
    watcher.cancel()
    assert most == 2
    assert [r.status for r in house.memory.records] == ["replied"] * 12


async def test_a_caller_that_leaves_frees_the_slot_and_is_recorded_as_cancelled(slow_house):
    house = slow_house
    replies = house.runner.submit(request("a long story"))
    async for reply in replies:
        if isinstance(reply, Delta):
            break
    assert len(house.runner.running()) == 1
    await replies.aclose()
    await until(lambda: not house.runner.running())
    assert house.memory.records[-1].status == "cancelled"
    assert house.runner.view()[0].counters.cancelled == 1


async def test_callers_that_leave_in_the_moment_their_runs_start_leave_nothing_behind(house):
    """A task that is cancelled before its first step runs no line of its own: its slot must come free all the same."""
    await house.ask("load the model")
    runner, waiting = house.runner, []
    for agent in "abc":
        replies = runner.submit(request(f"soon unwanted by {agent}", agent=agent))
        assert isinstance(await anext(replies), Waiting)
        waiting.append(replies)
    runner.nodes.tell(events.TimerFired())
    starting = runner.running()
    for flight in starting:
        runner.cancel(flight.id)
    for replies in waiting:
        await replies.aclose()
    await until(lambda: not runner.running() and not any(slot.job_id for slot in runner.view()[0].slots))
    assert [r.status for r in house.memory.records] == ["replied"] + ["cancelled"] * 3
    assert (await house.ask("and now?"))[-1].text


async def test_a_waiting_caller_that_leaves_leaves_nothing_behind(house):
    replies = house.runner.submit(request("never started", model="deepseek-r1:8b"))
    assert isinstance(await anext(replies), Waiting)
    await replies.aclose()
    assert house.runner.view()[0].waiting == 0
    assert house.memory.records[-1].status == "cancelled"


async def test_identical_requests_in_flight_share_one_generation(house):
    answers = await asyncio.gather(*(house.ask("the same", agent=a) for a in ("grouped-1", "grouped-2")))
    texts = {replies[-1].text for replies in answers}
    outcomes = sorted(next(r for r in replies if isinstance(r, Started)).cache for replies in answers)
    assert len(texts) == 1 and outcomes == ["coalesced", "miss"]
    assert house.runner.view()[0].counters.starts == 1


async def test_one_of_two_sharers_may_leave_without_harming_the_other(house):
    first = house.runner.submit(request("shared", agent="grouped-1"))
    await anext(first)
    second = asyncio.create_task(house.ask("shared", agent="grouped-2"))
    await until(lambda: any(f.followers == 2 for f in house.runner.flights.values()))
    await first.aclose()
    assert isinstance((await second)[-1], Completed)


async def test_agents_without_a_common_group_share_nothing(house):
    answers = await asyncio.gather(*(house.ask("the same", agent=a) for a in ("a", "b")))
    assert {next(r for r in replies if isinstance(r, Started)).cache for replies in answers} == {"miss"}
    again = await house.ask("the same", agent="c")
    assert next(r for r in again if isinstance(r, Started)).cache == "miss"


async def test_a_repeat_is_answered_from_the_cache_and_streamed(house):
    first = await house.ask("what is DNS?", task=Task(template="list"))
    starts = house.runner.view()[0].counters.starts
    again = await house.ask("what is DNS?", task=Task(template="list"))
    assert house.runner.view()[0].counters.starts == starts
    assert [type(r) for r in again] == [Started, Delta, Completed]
    assert again[0].cache == "exact" and again[-1].text == first[-1].text
    assert len(house.memory.cached) == 1


async def test_no_store_and_no_cache_are_honoured(house):
    await house.ask("private", cache_write=False)
    assert house.memory.cached == []
    await house.ask("public")
    fresh = await house.ask("public", cache_read=False)
    assert next(r for r in fresh if isinstance(r, Started)).cache == "miss"


async def test_a_load_that_fails_twice_fails_the_request_once(house):
    house.backend.fail_next_load("no memory")
    assert isinstance((await house.ask("one failed load is retried"))[-1], Completed)
    original = house.backend.load

    async def broken(spec):
        house.backend.fail_next_load("no memory")
        return await original(spec)

    house.backend.load = broken
    with pytest.raises(GenerationFailed, match="no memory"):
        await house.ask(model="deepseek-r1:8b")
    assert house.memory.records[-1].status == "failed"


async def test_a_backend_that_dies_is_recovered_and_the_request_answered_once(house):
    await house.ask("warm up")
    task = asyncio.create_task(house.ask("survive", model="qwen2.5-coder:7b"))
    await until(lambda: house.runner.view()[0].waiting == 1 or house.runner.running())
    house.backend.die()
    next(iter(house.runner.nodes)).lost("killed by the test")
    replies = await task
    assert isinstance(replies[-1], Completed)
    assert [r.status for r in house.memory.records] == ["replied", "replied"]


async def test_a_wedged_backend_is_found_by_its_probe_and_recovered():
    house = House(changed(Thresholds(), {"batch_window_ms": 1, "stall_timeout_s": 0.5, "probe_interval_s": 0.1}))
    await house.runner.start()
    await house.ask("warm up")
    house.backend.wedge()
    task = asyncio.create_task(house.ask("asked while wedged"))
    assert isinstance((await task)[-1], Completed)
    assert any(bar.kind == "lost" for bar in house.runner.journal.bars)
    await house.runner.close()


async def test_an_operator_pauses_intake_and_cancels(house):
    house.runner.steer(events.IntakePaused())
    with pytest.raises(IntakePaused) as refused:
        await house.ask()
    assert refused.value.retry_after_s >= 0
    house.runner.steer(events.IntakeResumed())
    replies = house.runner.submit(request("cancel me", model="deepseek-r1:8b"))
    await anext(replies)
    [flight] = house.runner.flights.values()
    assert house.runner.cancel(flight.id)
    with pytest.raises(Cancelled, match="operator"):
        await anext(replies)


async def test_an_agents_own_limit_is_its_own_error():
    house = House(changed(Thresholds(), {"max_waiting_per_agent": 1, "coalesce": False}))
    await house.runner.start()
    waiting = [asyncio.create_task(house.ask(f"question {n}")) for n in range(4)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    refused = [task.exception() for task in done if task.exception()]
    assert refused and isinstance(refused[0], AgentLimit) and refused[0].retry_after_s > 0
    await asyncio.gather(*waiting, return_exceptions=True)
    await house.runner.close()


async def test_closing_ends_every_request_with_an_error():
    house = House()
    await house.runner.start()
    task = asyncio.create_task(house.ask("cut off", model="deepseek-r1:8b"))
    await until(lambda: house.runner.view()[0].waiting == 1 or house.runner.running())
    await house.runner.close()
    with pytest.raises(BackendUnavailable):
        await task
    assert house.memory.records[-1].status == "failed"


async def test_embeddings_go_through_the_same_slots(house):
    replies = await house.ask("", kind=Kind.EMBED, messages=(), inputs=("one", "two"))
    assert len(replies[-1].vectors) == 2


class _Scripted(SimulatedBackend):
    """Answers combined prompts with markers, as a good model does; `parts` of them."""

    parts = 3

    async def generate(self, call):
        text = call.messages[-1].content
        count = text.count("Question ")
        if not count:
            yield Delta("single answer")
        for number in range(1, min(count, self.parts) + 1):
            yield Delta(f"<<{number}>>\nanswer {number}\n")
        yield Finished("stop", 30, 30)


@pytest.mark.parametrize(("parts", "singly"), [(3, 0), (2, 1), (0, 3)])
async def test_short_questions_of_agents_that_opted_in_are_combined_and_missing_parts_asked_singly(parts, singly):
    house = House(changed(Thresholds(), {"batch_window_ms": 30}))
    house.runner.agents = {"a": AgentProfile("a", "default", combine=True)}
    scripted = _Scripted(speed=SPEED)
    scripted.parts = parts
    next(iter(house.runner.nodes)).backend = scripted
    await house.runner.start()
    answers = await asyncio.gather(*(house.ask(f"What is {word}?") for word in ("DNS", "TLS", "TCP")))
    texts = [replies[-1].text for replies in answers]
    assert texts == [f"answer {n}" for n in range(1, parts + 1)] + ["single answer"] * singly
    assert house.runner.view()[0].counters.starts == 1 + singly
    await house.runner.close()


async def test_a_model_that_does_not_keep_the_format_is_soon_asked_singly_and_gets_another_chance(monkeypatch):
    monkeypatch.setattr(combiner, "TRY_AGAIN", 5)
    house = House(changed(Thresholds(), {"batch_window_ms": 30}))
    house.runner.agents = {"a": AgentProfile("a", "default", combine=True)}
    scripted = _Scripted(speed=SPEED)
    scripted.parts = 0
    next(iter(house.runner.nodes)).backend = scripted
    await house.runner.start()

    async def combined(tag: str) -> int:
        """How many generations three questions took beyond their own."""
        before = house.runner.view()[0].counters.starts
        await asyncio.gather(*(house.ask(f"What is {word}, {tag}?") for word in ("DNS", "TLS", "TCP")))
        return house.runner.view()[0].counters.starts - before - 3

    assert [await combined(tag) for tag in "pqrstu"] == [1, 1, 0, 0, 1, 0]
    await house.runner.close()


LONG_TALK = (
    *(
        Message(("user", "assistant")[n % 2], f"turn {n}: " + "words about port 8080 and so on " * 14)
        for n in range(24)
    ),
    Message("user", "what did we say?"),
)


async def test_a_long_conversation_is_summarised_by_the_small_tier_when_it_is_free(house):
    await house.ask("warm up")
    seen = []
    original = house.backend.generate

    async def generate(call):
        seen.append(call)
        if "Summarise the conversation" in call.messages[-1].content:
            yield Delta("They spoke about port 8080.")
            yield Finished("stop", 10, 6)
            return
        async for item in original(call):
            yield item

    house.backend.generate = generate
    replies = await house.ask(messages=LONG_TALK)
    assert isinstance(replies[-1], Completed)
    assert len(seen) == 2
    sent = "\n".join(m.content for m in seen[1].messages)
    assert "They spoke about port 8080." in sent
    assert [r.protocol for r in house.memory.records[-2:]] == ["summary", "control"]


async def test_a_summary_that_invents_a_number_is_not_used(house):
    await house.ask("warm up")
    original = house.backend.generate
    sent = []

    async def generate(call):
        if "Summarise the conversation" in call.messages[-1].content:
            yield Delta("They spoke about port 9999.")
            yield Finished("stop", 10, 6)
            return
        sent.extend(m.content for m in call.messages)
        async for item in original(call):
            yield item

    house.backend.generate = generate
    assert isinstance((await house.ask(messages=LONG_TALK))[-1], Completed)
    assert "9999" not in "".join(sent)


# --- an agent's own limits -------------------------------------------------------------------------------------


def limited(house: House, **limits: int) -> None:
    house.runner.reconfigure(
        catalogue=STRATEGY_CATALOGUE,
        thresholds=house.runner.pipeline.thresholds,
        agents={**AGENTS, "a": AgentProfile("a", "default", **limits)},
    )


async def test_requests_above_the_agents_rate_are_refused_with_the_right_time(house):
    limited(house, requests_per_minute=2)
    for number in range(2):
        await house.ask(f"Say {number}")
    with pytest.raises(AgentLimit, match="2 requests a minute") as refused:
        await house.ask("Say more")
    assert 25 < refused.value.retry_after_s <= 30
    assert house.memory.records[-1].status == "rejected"
    await house.ask("Say hello", agent="b")


async def test_tokens_count_for_what_ran_and_not_for_what_the_cache_answered(house):
    limited(house, tokens_per_minute=10_000)
    completed = (await house.ask("Say the same"))[-1]
    taken = house.runner.use_of("a").tokens
    assert isinstance(completed, Completed)
    assert taken == pytest.approx(completed.prompt_tokens + completed.output_tokens, rel=0.2)
    await house.ask("Say the same")
    assert house.runner.use_of("a").tokens <= taken


async def test_a_caller_that_leaves_pays_for_what_it_had(slow_house):
    limited(slow_house, tokens_per_minute=100_000)
    async with aclosing(slow_house.runner.submit(request("Say a lot"))) as replies:
        async for reply in replies:
            if isinstance(reply, Delta):
                break
    assert slow_house.runner.use_of("a").tokens > 1
    assert slow_house.runner.use_of("a").concurrent == 0


async def test_requests_at_once_are_bounded_and_the_wait_is_until_one_ends(slow_house):
    limited(slow_house, max_concurrent=1)
    first = asyncio.create_task(slow_house.ask("Say a lot"))
    await until(slow_house.runner.running)
    with pytest.raises(AgentLimit, match="1 requests at once") as refused:
        await slow_house.ask("Say more")
    assert refused.value.retry_after_s >= 1.0
    await slow_house.ask("Say hello", agent="b")
    await first
    await slow_house.ask("Say more")
    assert slow_house.runner.use_of("a").concurrent == 0
