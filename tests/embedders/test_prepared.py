"""A slow embedder on the event loop: nothing waits on the loop, memory is bounded, failures become sentences."""

import asyncio
import threading

import numpy as np
import pytest

from optimizer.core.errors import BackendUnavailable
from optimizer.embedders.prepared import PreparedEmbedder
from optimizer.ports import NotPrepared


class Slow:
    """Counts what it is asked; waits for `go`; fails with `error`."""

    name, max_tokens, strict_floor = "slow", 64, 0.9

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(self, texts):
        self.asked.append(list(texts))
        self.go.wait(5)
        if self.error is not None:
            raise self.error
        return np.asarray([[float(len(text)), 1.0] for text in texts], dtype=np.float32)


@pytest.fixture
async def slow():
    return Slow()


@pytest.fixture
async def embed(slow):
    made = PreparedEmbedder(slow, most=10, wait_s=5.0, rest_s=60.0)
    yield made
    slow.go.set()
    await made.close()


async def test_keeps_the_name_window_and_floor_of_the_embedder_behind_it(embed):
    assert (embed.name, embed.max_tokens, embed.strict_floor) == ("slow", 64, 0.9)


async def test_asks_to_be_prepared_and_then_answers_at_once(embed, slow):
    with pytest.raises(NotPrepared) as wanted:
        embed(["one", "three"])
    assert slow.asked == []
    assert await wanted.value.prepare() == ""
    assert embed(["three", "one", "three"]).tolist() == [[5.0, 1.0], [3.0, 1.0], [5.0, 1.0]]


async def test_fetches_only_what_is_missing_and_each_text_once(embed, slow):
    assert await embed.prepare(["a", "bb"]) == ""
    assert await embed.prepare(["bb", "ccc", "ccc"]) == ""
    assert slow.asked == [["a", "bb"], ["ccc"]]
    assert embed([]).shape[0] == 0


async def test_the_least_recently_used_vectors_go_first(embed):
    assert await embed.prepare([str(i) for i in range(10)]) == ""
    embed(["0"])
    assert await embed.prepare(["new"]) == ""
    embed(["0", "new", "2"])
    with pytest.raises(NotPrepared):
        embed(["1"])


async def test_what_is_prepared_is_all_there_even_when_memory_was_full(embed):
    assert await embed.prepare([str(i) for i in range(10)]) == ""
    texts = [str(i) for i in range(5)] + ["a", "b", "c", "d", "e"]
    assert await embed.prepare(texts) == ""
    assert len(embed(texts)) == 10


async def test_more_texts_than_memory_holds_are_refused_in_a_sentence(embed, slow):
    assert "more than" in await embed.prepare([str(i) for i in range(11)])
    assert slow.asked == []


async def test_the_loop_goes_on_while_the_embedder_works(embed, slow):
    slow.go.clear()
    preparing = asyncio.create_task(embed.prepare(["x"]))
    while not slow.asked:
        await asyncio.sleep(0.001)
    assert not preparing.done()
    slow.go.set()
    assert await preparing == ""


async def test_nobody_waits_longer_than_allowed_and_late_vectors_are_kept(embed, slow):
    slow.go.clear()
    assert "took longer than" in await embed.prepare(["x"], wait_s=0.01)
    assert "behind" in await embed.prepare(["y"], wait_s=5.0)  # at once: the thread is busy
    slow.go.set()
    async with asyncio.timeout(5):
        while "behind" in await embed.prepare(["y"]):
            await asyncio.sleep(0.001)
    assert embed(["x", "y"]).shape == (2, 2)


async def test_a_failure_is_a_sentence_and_gives_the_embedder_a_rest(embed, slow):
    slow.error = BackendUnavailable("ollama:m does not answer")
    assert await embed.prepare(["x"]) == "ollama:m does not answer"
    slow.error = None
    assert await embed.prepare(["x"]) == "ollama:m does not answer"
    assert len(slow.asked) == 1


async def test_after_the_rest_it_is_asked_again(slow):
    embed = PreparedEmbedder(slow, rest_s=0.0)
    slow.error = BackendUnavailable("away")
    assert await embed.prepare(["x"]) == "away"
    slow.error = None
    assert await embed.prepare(["x"]) == ""
    await embed.close()


async def test_what_is_at_hand_is_served_while_the_embedder_rests(embed, slow):
    assert await embed.prepare(["x"]) == ""
    slow.error = BackendUnavailable("away")
    await embed.prepare(["y"])
    assert await embed.prepare(["x"]) == ""
    assert embed(["x"]).shape == (1, 2)


async def test_a_bug_of_the_embedder_is_no_sentence(embed, slow):
    slow.error = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError):
        await embed.prepare(["x"])


async def test_a_caller_that_leaves_stops_its_fetch_between_parts(embed, slow):
    slow.go.clear()
    preparing = asyncio.create_task(embed.prepare([str(i) for i in range(10)]))
    while not slow.asked:
        await asyncio.sleep(0.001)
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    slow.go.set()
    assert await embed.prepare(["z"]) == ""
    assert [len(texts) for texts in slow.asked] == [8, 1]


async def test_a_single_question_gets_in_between_the_parts_of_a_long_conversation(slow):
    embed = PreparedEmbedder(slow)
    slow.go.clear()
    long = asyncio.create_task(embed.prepare([f"message {i}" for i in range(40)]))
    while not slow.asked:
        await asyncio.sleep(0.001)
    short = asyncio.create_task(embed.prepare(["question"]))
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(long, short)
    assert slow.asked.index(["question"]) < len(slow.asked) - 1
    await embed.close()
