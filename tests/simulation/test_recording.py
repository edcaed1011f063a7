"""What was recorded is replayed as it was: times, sizes, repeats; and no text is in it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.errors import ConfigurationError
from optimizer.core.request import Priority
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.core.tuning import judge
from optimizer.ports import Record
from optimizer.simulation.recording import lines, pieces, recording, workloads
from optimizer.simulation.replay import parts_of, replay
from optimizer.simulation.workload import Arrival, from_jsonl

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"


def record(n: int, at: float, model: str = TINY, cache: str = "miss", key: str = "", **more) -> Record:
    fields = {
        "id": f"r{n}", "agent": "scout", "protocol": "openai", "kind": "chat", "wanted": "auto", "model": model,
        "tier": "default", "status": "replied", "error": "", "arrived_at": 1000.0 + at, "queue_s": 0.1, "load_s": 0.0,
        "prefill_s": 0.2, "decode_s": 1.0, "ttft_s": 0.3, "total_s": 1.3, "prompt_tokens_original": 120,
        "prompt_tokens": 80, "output_tokens": 40, "cache": cache, "complexity": 0.3, "done_reason": "stop",
        "simulated": False, "prompt_original": "a secret", "prompt_sent": "secret", "answer": "the answer",
        "decisions": ({"stage": "cache", "values": {"key": key}},) if key else (),
    }  # fmt: skip
    return Record(**{**fields, **more})


arrivals = st.builds(
    Arrival,
    at_s=st.floats(0, 3600).map(lambda s: round(s, 3)),
    agent=st.sampled_from(["a", "b"]),
    model=st.sampled_from([TINY, QWEN, DEEPSEEK]),
    prompt_tokens=st.integers(1, 2000),
    output_tokens=st.integers(0, 900),
    priority=st.sampled_from(list(Priority)),
    deadline_s=st.none() | st.floats(0.5, 100),
    patience_s=st.none() | st.floats(0.5, 100),
    key=st.sampled_from(["", "k1", "k2"]),
)


@settings(max_examples=30)
@given(st.lists(arrivals, min_size=1, max_size=10))
def test_lines_are_read_back_as_they_were_written(some: list[Arrival]) -> None:
    assert from_jsonl(lines(some), STRATEGY_CATALOGUE) == some


def test_records_become_arrivals_without_a_word_of_text() -> None:
    taken = recording(
        [
            record(1, 0.0, key="f00d"),
            record(2, 5.0, cache="exact", key="f00d"),
            record(3, 6.0, cache="off", key="beef"),
            record(4, 7.0, status="cancelled", output_tokens=3, total_s=9.0),
            record(5, 8.0, status="rejected", prompt_tokens=0),
            record(6, 9.0, protocol="combined"),
        ],
        {"scout": Priority.BATCH},
    )
    assert taken.left_out == 2
    assert [(a.at_s, a.key, a.output_tokens, a.patience_s) for a in taken.arrivals] == [
        (0.0, "k1", 40, None), (5.0, "k1", 40, None), (6.0, "", 40, None), (7.0, "", 40, 9.0),
    ]  # fmt: skip
    written = "\n".join(lines(taken.arrivals))
    assert '"priority":"batch"' in written
    assert not any(word in written for word in ("secret", "answer", "f00d", "beef", "r1"))


def test_a_semantic_hit_is_replayed_as_a_repeat_of_the_answer_it_was_given() -> None:
    hit = record(2, 5.0, cache="semantic")
    own, given = ({"stage": "cache", "values": {"key": key}} for key in ("own", "given"))
    taken = recording([record(1, 0.0, key="given"), replace(hit, decisions=(own, given))], {})
    assert [a.key for a in taken.arrivals] == ["k1", "k1"]


@settings(max_examples=30)
@given(st.lists(arrivals, min_size=1, max_size=20), st.integers(1, 8))
def test_pieces_hold_every_request_once(some: list[Arrival], count: int) -> None:
    parts = pieces(sorted(some, key=lambda a: a.at_s), count)
    assert sum(map(len, parts)) == len(some) and len(parts) <= count
    assert all(arrival.at_s >= 0 for part in parts for arrival in part)


def test_a_piece_knows_the_answers_before_it() -> None:
    first, second = workloads([[Arrival(0.0, "a", TINY, 10, 77)], [Arrival(0.0, "a", TINY, 10, 5)]])
    assert list(first.traffic(1).past()) == []
    assert list(second.traffic(1).past()) == [("a", TINY, 77)]


def repeats(gap_s: float, count: int = 12) -> list[Arrival]:
    return [Arrival(n * gap_s, "a", TINY, 100, 60, key="k1") for n in range(count)]


def test_a_longer_ttl_answers_more_repeats() -> None:
    short, long = (changed(Thresholds(), {"cache_ttl_s": ttl}) for ttl in (600.0, 900.0))
    [before] = replay([repeats(700.0)], short, STRATEGY_CATALOGUE)
    [after] = replay([repeats(700.0)], long, STRATEGY_CATALOGUE)
    assert before.figures.cache_hits == 0.0
    assert after.figures.cache_hits == pytest.approx(0.5, abs=0.1)
    off = changed(long, {"cache_enabled": False})
    assert replay([repeats(700.0)], off, STRATEGY_CATALOGUE)[0].figures.cache_hits == 0.0


def test_a_piece_begins_with_the_cache_that_the_one_before_left() -> None:
    half, span_s = repeats(100.0, 2), 101.0
    for ttl_s, hits in ((span_s + 50.0, [0.5, 0.5]), (2 * span_s, [0.5, 1.0])):
        setting = changed(Thresholds(), {"cache_ttl_s": ttl_s})
        assert [r.figures.cache_hits for r in replay([half, half], setting, STRATEGY_CATALOGUE)] == hits


def test_a_shorter_limit_says_what_it_cuts_short() -> None:
    part = [Arrival(n * 30.0, "a", TINY, 100, 500 if n % 4 == 0 else 60) for n in range(40)]
    halved = changed(Thresholds(), {"max_tokens_scale": 0.5})
    [before], [after] = replay([part], Thresholds(), STRATEGY_CATALOGUE), replay([part], halved, STRATEGY_CATALOGUE)
    assert after.figures.cut_short == 0.25 and after.figures.mean_s < before.figures.mean_s
    assert "cuts 25.0% of the answers short" in judge([before.figures] * 8, [after.figures] * 8).reason


def test_a_replay_is_deterministic_and_the_same_setting_makes_no_difference() -> None:
    part = [Arrival(n * 3.0, f"a{n % 5}", (TINY, QWEN, DEEPSEEK)[n % 3], 200, 90) for n in range(60)]
    one, two = (replay(parts_of(part, 3), Thresholds(), STRATEGY_CATALOGUE) for _ in range(2))
    assert [r.figures for r in one] == [r.figures for r in two]
    verdict = judge([r.figures for r in one], [r.figures for r in two])
    assert (verdict.ratio, verdict.better_in, verdict.accepted) == (1.0, 0, False)


def test_what_cannot_be_replayed_is_said() -> None:
    with pytest.raises(ConfigurationError, match="nothing was recorded"):
        parts_of([])
    with pytest.raises(ConfigurationError, match="uses gpt-oss, which is not served here"):
        replay([[Arrival(0.0, "a", "gpt-oss", 10, 5)]], Thresholds(), STRATEGY_CATALOGUE)
    small = changed(Thresholds(), {"gpu_memory_mb": 1024})
    with pytest.raises(ConfigurationError, match=r"deepseek-r1:8b cannot fit into 922 MB"):
        replay([[Arrival(0.0, "a", DEEPSEEK, 10, 5)]], small, STRATEGY_CATALOGUE)
