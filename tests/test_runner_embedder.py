"""The runner with an embedder that takes its time: hits, a cold memory, and what happens when it fails."""

from collections.abc import Iterator

import numpy as np
import pytest

from optimizer.core.errors import BackendUnavailable
from optimizer.core.request import Kind, Message, Request
from optimizer.core.thresholds import Thresholds, changed
from optimizer.embedders.prepared import PreparedEmbedder
from optimizer.embedding import default_embedder
from optimizer.pipeline import Pipeline
from optimizer.ports import Completed, Started
from optimizer.runner import Runner
from tests.test_runner import AGENTS, STRATEGY_CATALOGUE, House, request

LIMITS = changed(Thresholds(), {"batch_window_ms": 1, "summary_wait_s": 0.0})


class Slow:
    """The default embedder's vectors under another name, counted; fails while `error` is set."""

    max_tokens, strict_floor = 256, 0.85

    def __init__(self, name: str = "slow") -> None:
        self.name = name
        self.asked: list[str] = []
        self.error: Exception | None = None

    def __call__(self, texts):
        self.asked += texts
        if self.error is not None:
            raise self.error
        return default_embedder()(texts)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def house(slow) -> Iterator[House]:
    made = House()
    made.runner = Runner(
        backend=made.backend, pipeline=pipeline(slow), agents=AGENTS, records=made.memory, cache_store=made.memory
    )
    await made.runner.start()
    yield made
    await made.runner.close()
    await made.runner.pipeline.embed.close()


def pipeline(slow: Slow) -> Pipeline:
    return Pipeline(
        catalogue=STRATEGY_CATALOGUE,
        thresholds=LIMITS,
        count=lambda text: len(text.split()),
        embed=PreparedEmbedder(slow, rest_s=60.0),
        embed_at_once=default_embedder(),
    )


def cache_decisions(started: Started) -> list[str]:
    return [d.reason for d in started.decisions if d.stage == "cache"]


async def started(house: House, text: str, **rest: object) -> Started:
    return next(reply for reply in await house.ask(text, **rest) if isinstance(reply, Started))


async def test_a_rewording_is_answered_from_the_cache_with_vectors_fetched_once(house, slow):
    assert (await started(house, "How do I expose port 8080 in docker compose?")).cache == "miss"
    again = await started(house, "how do i expose port 8080 in docker compose")
    assert again.cache == "semantic"
    assert len(slow.asked) == 1  # the two have the same words


async def test_the_near_miss_is_not_answered_from_the_cache(house):
    await house.ask("How do I expose port 8080 in docker compose?")
    assert (await started(house, "How do I expose port 8081 in docker compose?")).cache == "miss"


async def test_an_exact_repeat_needs_no_vector(house, slow):
    await house.ask("What is a port?")
    slow.asked.clear()
    assert (await started(house, "What is a port?")).cache == "exact"
    assert slow.asked == []


async def test_when_the_embedder_fails_only_exact_repeats_are_served_and_the_record_says_why(house, slow):
    slow.error = BackendUnavailable("slow does not answer")
    first = await started(house, "How do I expose port 8080?")
    assert first.cache == "miss"
    assert cache_decisions(first) == ["exact repeats only: slow does not answer"]
    assert (await started(house, "How do I expose port 8080?")).cache == "exact"
    assert (await started(house, "how do i expose port 8080")).cache == "miss"
    assert any("slow does not answer" in d["reason"] for d in house.memory.records[0].decisions)
    assert all(entry.embedding is None for entry in house.memory.cached)


def long_talk() -> tuple[Message, ...]:
    talk = [Message("user" if i % 2 == 0 else "assistant", f"Message {i} " + f"on pumps {i} " * 60) for i in range(16)]
    talk[2] = Message("user", "The gate code of the harbour is 4711. " + "Ships come and go. " * 40)
    return (*talk, Message("user", "Which gate code does the harbour have?"))


def ask_long() -> dict[str, object]:
    return {"messages": long_talk(), "kind": Kind.CHAT}


async def test_a_long_conversation_is_fitted_with_the_chosen_embedder(house, slow):
    await house.ask(**ask_long())
    assert sum(text.startswith("Message") for text in slow.asked) > 5
    assert house.memory.records[0].status == "replied"


async def test_a_long_conversation_is_fitted_by_the_default_embedder_when_the_chosen_one_fails(house, slow):
    slow.error = BackendUnavailable("away")
    replies = await house.ask(**ask_long())
    assert isinstance(replies[-1], Completed)
    assert "to fit the window" in str(house.memory.records[0].decisions)
    assert "4711" in house.memory.records[0].prompt_sent


async def test_nothing_is_embedded_for_agents_without_semantic_hits(house, slow):
    weather = {"type": "function", "function": {"name": "weather"}}
    await house.ask("What does the weather tool say?", tools=(weather,), model="qwen2.5-coder:7b")
    assert slow.asked == []


def test_answers_found_by_another_embedders_vectors_are_exact_only(slow):
    """Same question, same vectors, other name: another partition, also for entries that come from disk."""
    one, other = pipeline(slow), pipeline(Slow("other"))
    asked: Request = request("How do I expose port 8080?")
    routes = [p.route(asked, AGENTS["a"], lambda model: 0.0) for p in (one, other)]
    assert routes[0].partition != routes[1].partition
    assert routes[0].key == routes[1].key


async def test_vectors_survive_in_the_entry_that_is_stored(house):
    await house.ask("How do I expose port 8080?")
    [entry] = house.memory.cached
    assert np.linalg.norm(entry.embedding) == pytest.approx(1.0, abs=1e-5)
