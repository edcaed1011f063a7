"""The response cache: keys, eligibility, bounds, ages, invalidation, neighbours."""

import json
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core import caching
from optimizer.core.caching import CacheEntry, ResponseCache, exact_key, partition_key, semantic_obstacle
from optimizer.core.request import CacheMode, Kind, Message, Request

SYSTEM = Message("system", "You are terse.")
PARTS = {
    "model": "simulated/tinyllama",
    "messages": (SYSTEM, Message("user", "What is a port?")),
    "options": {"temperature": 0.7, "num_predict": 100},
    "tools": (),
    "format": None,
    "think": None,
    "kind": Kind.CHAT,
    "group": "agent:a",
    "template": "",
    "language": "",
    "inputs": (),
    "suffix": "",
    "raw": False,
}
OTHER = {
    "model": "simulated/qwen",
    "messages": (SYSTEM, Message("user", "What is a socket?")),
    "options": {"temperature": 0.8, "num_predict": 100},
    "tools": ({"name": "search"},),
    "format": "json",
    "think": True,
    "kind": Kind.GENERATE,
    "group": "agent:b",
    "template": "list",
    "language": "python",
    "inputs": ("text",),
    "suffix": "end",
    "raw": True,
}


def unit(*numbers: float) -> caching.Vector:
    vector = np.zeros(8, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def entry(key: str = "k", **changes: object) -> CacheEntry:
    made = CacheEntry(
        key=key,
        partition="p",
        agent="coder",
        group="agent:coder",
        model="tinyllama",
        question="How do I expose port 8080 in docker compose?",
        text="Use ports.",
        thinking="",
        done_reason="stop",
        prompt_tokens=10,
        output_tokens=3,
        embedding=None,
        stored_at=1000.0,
    )
    return replace(made, **changes)


def semantic(cache: ResponseCache, question: str, vector: caching.Vector, **changes: object) -> caching.Hit | None:
    arguments = {"partition": "p", "mode": CacheMode.STRICT, "now": 1001.0, "floor_light": 0.95, "floor_strict": 0.8}
    arguments |= changes
    return cache.get_semantic(question=question, embedding=vector, **arguments)


class TestKeys:
    @pytest.mark.parametrize("part", PARTS)
    def test_everything_that_changes_the_answer_changes_the_exact_key(self, part):
        assert exact_key(**PARTS) != exact_key(**{**PARTS, part: OTHER[part]})

    @pytest.mark.parametrize("part", [part for part in PARTS if part != "messages"])
    def test_all_but_the_question_changes_the_partition(self, part):
        assert partition_key(**PARTS) != partition_key(**{**PARTS, part: OTHER[part]})

    def test_another_question_stays_in_the_partition(self):
        assert partition_key(**PARTS) == partition_key(**{**PARTS, "messages": OTHER["messages"]})

    def test_history_and_system_prompt_make_the_partition(self):
        question = Message("user", "And then?")
        first = (SYSTEM, Message("user", "one"), Message("assistant", "two"), question)
        second = (SYSTEM, Message("user", "one"), Message("assistant", "three"), question)
        other_system = (Message("system", "Be long."), *first[1:])
        keys = {partition_key(**{**PARTS, "messages": messages}) for messages in (first, second, other_system)}
        assert len(keys) == 3

    def test_order_of_options_does_not_matter_nor_does_the_kind_of_mapping(self):
        turned = MappingProxyType(dict(reversed(PARTS["options"].items())))
        assert exact_key(**PARTS) == exact_key(**{**PARTS, "options": turned})

    def test_boundaries_between_messages_matter(self):
        one = (Message("user", "ab"), Message("user", "c"))
        two = (Message("user", "a"), Message("user", "bc"))
        assert exact_key(**{**PARTS, "messages": one}) != exact_key(**{**PARTS, "messages": two})

    def test_what_json_cannot_hold_is_refused(self):
        with pytest.raises(TypeError, match="object"):
            exact_key(**{**PARTS, "options": {"stop": object()}})

    @given(st.text(), st.text())
    def test_different_texts_have_different_keys_and_odd_characters_do_not_fail(self, a, b):
        keys = [exact_key(**{**PARTS, "messages": (Message("user", text),)}) for text in (a, b)]
        assert (keys[0] == keys[1]) == (a == b)


class TestEligibility:
    EMBEDDER = SimpleNamespace(max_tokens=20)

    def obstacle(self, *messages: Message, embed=EMBEDDER, **changes) -> str:
        request = Request("1", "coder", Kind.CHAT, messages, **changes)
        return semantic_obstacle(request, embed, lambda text: len(text.split()))

    def test_a_plain_question_is_eligible(self):
        assert self.obstacle(SYSTEM, Message("user", "What is a port?")) == ""

    @pytest.mark.parametrize(
        ("messages", "changes", "word"),
        [
            ([Message("user", "hi")], {"tools": ({"name": "x"},)}, "tools"),
            ([Message("assistant", "", tool_calls=({"id": "1"},)), Message("user", "hi")], {}, "tools"),
            ([Message("tool", "42"), Message("user", "hi")], {}, "tools"),
            ([Message("user", "what is this?", images=("aGk=",))], {}, "images"),
            ([Message("user", "  \n")], {}, "empty"),
            ([], {}, "last"),
            ([Message("user", "hi"), Message("assistant", "Once upon")], {}, "last"),
            ([Message("user", '{"state": 3, "hp": 10}')], {}, "structured"),
            ([Message("user", "[1, 2, 3]")], {}, "structured"),
            ([Message("user", "word " * 30)], {}, "window"),
            ([Message("user", "def f(")], {"suffix": "return x"}, "raw"),
            ([Message("user", "<s>hi")], {"raw": True}, "raw"),
        ],
    )
    def test_unsafe_turns_take_exact_repeats_only(self, messages, changes, word):
        assert word in self.obstacle(*messages, **changes)

    def test_embeddings_and_a_missing_embedder_are_obstacles(self):
        assert "embedder" in self.obstacle(Message("user", "hi"), embed=None)
        request = Request("1", "coder", Kind.EMBED, (), inputs=("a",))
        assert "embeddings" in semantic_obstacle(request, self.EMBEDDER, len)

    def test_the_question_is_embedded_without_its_typing(self):
        assert caching.comparable("Hi!  What's  the PORT? Thanks!") == caching.comparable("what is the port")


class TestExact:
    def test_a_stored_answer_is_found_with_its_age_and_counted(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(), 1000.0)
        hit = cache.get_exact("k", 1005.0)
        assert (hit.kind, hit.similarity, hit.age_s, hit.entry.hits, hit.verdict) == ("exact", 1.0, 5.0, 1, None)
        assert "5 s ago" in hit.reason
        json.dumps(hit.values())

    def test_an_unknown_key_misses(self):
        assert ResponseCache(10, 60.0).get_exact("k", 0.0) is None

    def test_an_answer_expires_after_its_ttl_and_not_before(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(), 1000.0)
        assert cache.get_exact("k", 1060.0)
        assert cache.get_exact("k", 1060.1) is None
        assert len(cache) == 0

    @pytest.mark.parametrize("change", [{"done_reason": "length"}, {"done_reason": ""}, {"text": " \n"}])
    def test_truncated_failed_and_empty_answers_are_not_kept(self, change):
        cache = ResponseCache(10, 60.0)
        assert not caching.storable(entry(**change))
        assert cache.put(entry(**change), 1000.0) == []
        assert len(cache) == 0

    def test_an_answer_already_too_old_is_not_kept(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(stored_at=900.0), 1000.0)
        assert len(cache) == 0

    def test_the_least_recently_used_goes_first(self):
        cache = ResponseCache(2, 60.0)
        cache.put(entry("a"), 1000.0)
        cache.put(entry("b"), 1000.0)
        cache.get_exact("a", 1000.0)
        assert cache.put(entry("c"), 1000.0) == ["b"]
        assert [kept.key for kept in cache.entries()] == ["a", "c"]

    def test_storing_again_replaces_without_pushing_anything_out(self):
        cache = ResponseCache(1, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        assert cache.put(entry(text="newer", embedding=unit(0, 1)), 1000.0) == []
        assert cache.get_exact("k", 1000.0).entry.text == "newer"
        assert semantic(cache, entry().question, unit(1)) is None

    def test_resizing_takes_effect_at_once(self):
        cache = ResponseCache(3, 60.0)
        for key in "abc":
            cache.put(entry(key), 1000.0)
        assert cache.resize(1, 5.0) == ["a", "b"]
        assert cache.get_exact("c", 1006.0) is None

    def test_a_cache_of_no_entries_keeps_nothing(self):
        cache = ResponseCache(0, 60.0)
        assert cache.put(entry(), 1000.0) == []
        assert len(cache) == 0

    def test_expire_frees_what_is_too_old(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry("old", stored_at=950.0), 1000.0)
        cache.put(entry("new"), 1000.0)
        assert cache.expire(1020.0) == ["old"]
        assert len(cache) == 1


class TestInvalidation:
    @pytest.fixture
    def cache(self) -> ResponseCache:
        cache = ResponseCache(10, 60.0)
        cache.put(entry("a", agent="x", model="m1", group="g1", embedding=unit(1)), 1000.0)
        cache.put(entry("b", agent="x", model="m2", group="g1", embedding=unit(1)), 1000.0)
        cache.put(entry("c", agent="y", model="m1", group="g2", embedding=unit(1)), 1000.0)
        return cache

    @pytest.mark.parametrize(
        ("condition", "gone"),
        [
            ({"key": "b"}, ["b"]),
            ({"key": "zzz"}, []),
            ({"agent": "x"}, ["a", "b"]),
            ({"model": "m1"}, ["a", "c"]),
            ({"group": "g2"}, ["c"]),
            ({"agent": "x", "model": "m1"}, ["a"]),
            ({"all": True}, ["a", "b", "c"]),
            ({}, []),
        ],
    )
    def test_forgets_exactly_what_was_named(self, cache, condition, gone):
        assert cache.invalidate(**condition) == gone
        assert sorted(kept.key for kept in cache.entries()) == sorted({"a", "b", "c"} - set(gone))

    def test_a_forgotten_entry_is_no_neighbour_either(self, cache):
        cache.invalidate(all=True)
        assert semantic(cache, entry().question, unit(1)) is None


class TestSemantic:
    def test_a_rewording_is_served_with_the_verdict_for_the_audit(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1, 0.1)), 1000.0)
        hit = semantic(cache, "How can I expose port 8080 in docker compose?", unit(1, 0.2))
        assert hit.kind == "semantic"
        assert hit.similarity == pytest.approx(0.995, abs=0.005)
        assert hit.verdict.allowed
        assert hit.values()["cached_question"] == entry().question

    def test_the_near_miss_is_not_served_however_similar(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        assert semantic(cache, "How do I expose port 8081 in docker compose?", unit(1)) is None

    def test_the_second_neighbour_is_served_when_the_guards_refuse_the_first(self):
        cache = ResponseCache(10, 60.0)
        question = "How do I expose port 8081 in docker compose?"
        cache.put(entry("near", embedding=unit(1)), 1000.0)
        cache.put(entry("right", question=question, embedding=unit(1, 0.3)), 1000.0)
        assert semantic(cache, question, unit(1)).entry.key == "right"
        candidates = cache.candidates("p", question, unit(1), CacheMode.STRICT, 1001.0, 0.8)
        assert [(c.entry.key, c.verdict.guard) for c in candidates] == [("near", "number"), ("right", "same")]

    def test_below_the_floor_of_the_mode_nothing_is_served(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        distant = unit(0.9, np.sqrt(1 - 0.81))
        assert semantic(cache, entry().question, distant, floor_strict=0.8)
        assert semantic(cache, entry().question, distant, floor_strict=0.91) is None
        assert semantic(cache, entry().question, distant, mode=CacheMode.LIGHT) is None
        assert semantic(cache, entry().question, distant, mode=CacheMode.LIGHT, floor_light=0.8)

    @pytest.mark.parametrize("mode", [CacheMode.OFF, CacheMode.EXACT])
    def test_modes_without_similarity_find_nothing(self, mode):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        assert semantic(cache, entry().question, unit(1), mode=mode) is None

    def test_never_across_partitions(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        assert semantic(cache, entry().question, unit(1), partition="other group") is None

    def test_expired_neighbours_are_passed_over(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry(embedding=unit(1)), 1000.0)
        assert semantic(cache, entry().question, unit(1), now=1061.0) is None

    def test_vectors_of_another_embedder_are_never_compared(self):
        cache = ResponseCache(10, 60.0)
        cache.put(entry("old", embedding=unit(1)), 1000.0)
        other = np.array([1.0, 0.0], dtype=np.float32)
        assert semantic(cache, entry().question, other) is None
        cache.put(entry("new", embedding=other), 1000.0)
        assert semantic(cache, entry().question, other).entry.key == "new"
        cache.invalidate(all=True)
        assert len(cache) == 0

    def test_entries_put_again_in_order_restore_the_cache(self):
        cache = ResponseCache(10, 60.0)
        for key in "abc":
            cache.put(entry(key, embedding=unit(1)), 1000.0)
        cache.get_exact("a", 1000.0)
        restored = ResponseCache(10, 60.0)
        for kept in cache.entries():
            restored.put(kept, 1001.0)
        assert [kept.key for kept in restored.entries()] == ["b", "c", "a"]
        assert semantic(restored, entry().question, unit(1))


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "get"]), st.integers(0, 12), st.integers(0, 2)), max_size=60))
def test_bounds_and_neighbours_hold_through_any_sequence(steps):
    """Never more entries than allowed, and the nearest neighbour is what a full search over the entries finds."""
    cache = ResponseCache(6, 1e9)
    for action, number, partition in steps:
        key = f"k{number}"
        if action == "put":
            vector = unit(*np.cos(np.arange(8) * (number + 1)))
            cache.put(
                entry(key, partition=f"p{partition}", question=f"Explain item {number}", embedding=vector), 1000.0
            )
        elif action == "drop":
            cache.invalidate(key=key)
        else:
            cache.get_exact(key, 1000.0)
        assert len(cache) <= 6
    for kept in cache.entries():
        assert semantic(cache, kept.question, kept.embedding, partition=kept.partition).entry.key == kept.key
