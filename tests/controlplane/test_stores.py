"""Buffers and stores: nothing waits, nothing is lost on the way, nothing unstorable gets through."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from django.db import IntegrityError, OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from controlplane import cached_answers, keys, queries, storable, stores
from controlplane.models import AgentKey, CachedAnswer, LanguageModel, Metric, Node, RequestRecord
from controlplane.record_rows import row_of, values_of
from controlplane.stores.buffer import WriteBuffer
from controlplane.stores.insert import insert
from optimizer.backends.llamacpp_models import EMBEDDED_MEMORY_MB
from optimizer.core.caching import CacheEntry, ResponseCache
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import ThresholdError
from optimizer.ports import Record

NOW = 1_790_000_000.0

RECORD = Record(
    id="r1", agent="scout", protocol="openai", kind="chat", wanted="auto", model="tinyllama", tier="default",
    status="replied", error="", arrived_at=NOW, queue_s=0.1, load_s=0.0, prefill_s=0.2, decode_s=1.0, ttft_s=0.3,
    total_s=1.3, prompt_tokens_original=120, prompt_tokens=80, output_tokens=40, cache="miss", complexity=0.31,
    done_reason="stop", simulated=False, decisions=({"stage": "selection", "choice": "default", "reason": "low"},),
    prompt_original="the question", prompt_sent="question", answer="an answer",
)  # fmt: skip


class Database:
    """A stand-in that fails as told and keeps what it was given."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.error: Exception | None = None
        self.refuses: set[int] = set()

    def write(self, batch: list[int]) -> None:
        if self.error:
            raise self.error
        if self.refuses & set(batch):
            raise IntegrityError("refused")
        self.rows += batch


def test_a_database_that_is_away_keeps_the_batch_in_order_and_is_logged_once(caplog):
    database = Database()
    buffer = WriteBuffer("numbers", database.write, most=2_000)
    for item in range(1_200):
        buffer.add(item)
    database.error = OperationalError("database is locked")
    assert [buffer.flush(), buffer.flush(), buffer.flush()] == [0, 0, 0]
    database.error = None
    assert buffer.flush() == 1_200
    assert database.rows == list(range(1_200))
    assert [record.message for record in caplog.records] == [
        "numbers: not written, kept for another try: database is locked",
        "numbers: written again",
    ]


def test_one_refused_item_does_not_hold_up_the_others(caplog):
    database = Database()
    database.refuses = {3}
    buffer = WriteBuffer("numbers", database.write, most=10)
    for item in range(5):
        buffer.add(item)
    assert buffer.flush() == 4
    assert database.rows == [0, 1, 2, 4]
    assert buffer.dropped == 1
    assert "1 refused" in caplog.text


def test_a_full_buffer_drops_the_newest_and_counts_them(caplog):
    database = Database()
    buffer = WriteBuffer("numbers", database.write, most=3)
    for item in range(5):
        buffer.add(item)
    buffer.flush()
    assert database.rows == [0, 1, 2]
    assert buffer.dropped == 2
    assert len(caplog.records) == 1


@pytest.mark.django_db
def test_a_record_is_stored_as_it_was():
    buffer = stores.RecordBuffer()
    buffer.save(RECORD)
    assert buffer.flush() == 1
    row = RequestRecord.objects.get()
    for name in ("id", "agent", "model", "status", "total_s", "complexity", "answer", "prompt_tokens", "simulated"):
        assert getattr(row, name) == getattr(RECORD, name)
    assert row.arrived_at.timestamp() == NOW
    assert row.decisions == [dict(RECORD.decisions[0])]
    assert row.tokens_saved == 40


@pytest.mark.django_db
def test_a_record_comes_back_as_it_went_in():
    buffer = stores.RecordBuffer()
    for number in range(3):
        buffer.save(replace(RECORD, id=f"r{number}", arrived_at=NOW + number, agent="b" if number else "a"))
    buffer.flush()
    assert queries.record("r0") == replace(RECORD, id="r0", agent="a", decisions=(dict(RECORD.decisions[0]),))
    assert queries.record("unknown") is None
    assert [record.id for record in queries.records()] == ["r2", "r1", "r0"]
    assert [record.id for record in queries.records("b", "replied", 1)] == ["r2"]
    assert queries.records(status="failed") == []


@pytest.mark.django_db
def test_feedback_is_kept_even_when_it_comes_before_the_record_is_written():
    assert queries.give_feedback(RECORD, True) is None
    buffer = stores.RecordBuffer()
    buffer.save(RECORD)
    buffer.flush()
    assert queries.give_feedback(RECORD, False) is True
    assert queries.outcomes() == [("scout", "default", 0, 1)]


@pytest.mark.django_db
def test_a_record_written_twice_counts_once():
    buffer = stores.RecordBuffer()
    buffer.save(RECORD)
    buffer.flush()
    buffer.save(RECORD)
    buffer.flush()
    assert RequestRecord.objects.count() == 1


def stored(request_id: str) -> list[object]:
    """The row as the database has it, less its key."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM controlplane_requestrecord WHERE id = %s", [request_id])
        (row,) = cursor.fetchall()
        return [value for column, value in zip(cursor.description, row, strict=True) if column[0] != "id"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "record",
    [RECORD, replace(RECORD, complexity=None, good=False, simulated=True, decisions=(), arrived_at=NOW + 0.25)],
)
def test_rows_written_in_bulk_are_the_rows_that_django_would_write(record):
    insert(RequestRecord, [values_of(replace(record, id="bulk"))])
    row_of(replace(record, id="django")).save()
    assert stored("bulk") == stored("django")


@pytest.mark.django_db
def test_a_row_that_is_there_already_is_left_alone_and_the_others_are_inserted():
    row_of(RECORD).save()
    insert(RequestRecord, [values_of(replace(RECORD, answer="another")), values_of(replace(RECORD, id="r2"))])
    assert dict(RequestRecord.objects.values_list("id", "answer")) == {"r1": "an answer", "r2": "an answer"}


@pytest.mark.django_db
def test_a_row_without_a_value_for_a_field_is_our_fault_and_nothing_is_written():
    values = values_of(RECORD)
    del values["decisions"]
    with pytest.raises(KeyError, match="decisions"):
        insert(RequestRecord, [values_of(replace(RECORD, id="r2")), values])
    assert not RequestRecord.objects.exists()


@pytest.mark.django_db
def test_hostile_texts_and_numbers_are_stored_all_the_same():
    buffer = stores.RecordBuffer()
    buffer.save(
        replace(
            RECORD,
            wanted="x" * 10_000,
            prompt_original="nul \x00 lone \ud800 pair \ud83d\ude00",
            error="e" * 9_000,
            total_s=math.nan,
            decisions=({"stage": "s", "values": {"a": math.inf, "b": {1, 2}, "c": "\ud800"}},),
        )
    )
    assert buffer.flush() == 1
    row = RequestRecord.objects.get()
    assert row.prompt_original == "nul \ufffd lone \ufffd pair \U0001f600"
    assert len(row.wanted) == 120
    assert row.decisions[0]["values"]["a"] is None


@given(st.text(st.characters(), max_size=50))
def test_a_text_that_can_be_stored_is_left_alone(text):
    cleaned = storable.text(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    if "\x00" not in text and not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert cleaned == text


@pytest.mark.django_db
def test_the_use_of_a_key_is_noted_without_moving_the_state(agent):
    token = keys.issue(agent)
    version = queries.state_version()
    buffer = stores.RecordBuffer()
    buffer.key_used(token.split("_")[1], NOW)
    buffer.flush()
    assert AgentKey.objects.get().last_used_at.timestamp() == NOW
    assert queries.state_version() == version


@pytest.mark.django_db
def test_metrics_add_up_within_a_minute_and_roll_up_to_hours():
    point = stores.MetricPoint("response_s", NOW, 2, 3.0, 1.0, 2.0, {"model": "m", "agent": "a"}, {"7": 2})
    assert stores.save_metrics([point, replace(point, min=0.5, start=NOW + 1)]) == 1
    assert stores.save_metrics([point]) == 1
    row = Metric.objects.get()
    assert (row.count, row.sum, row.min, row.max, row.sketch) == (6, 9.0, 0.5, 2.0, {"7": 6})
    assert row.labels == "agent=a,model=m"
    stores.save_metrics([replace(point, start=NOW + 60)])
    assert stores.roll_up(NOW + 7200) == 2
    hour = Metric.objects.get()
    assert (hour.resolution, hour.count, hour.sketch) == ("hour", 8, {"7": 8})
    assert hour.start.timestamp() % 3600 == 0


@pytest.mark.django_db
def test_old_history_is_deleted_and_recent_history_stays():
    buffer = stores.RecordBuffer()
    for days in (0, 6, 8, 30):
        buffer.save(replace(RECORD, id=f"r{days}", arrived_at=NOW - days * 86_400))
    buffer.flush()
    deleted = stores.delete_old(
        NOW, record_retention_days=7, prompt_retention_hours=168, cache_ttl_s=3600, task_retention_days=30
    )
    assert deleted["records"] == 2 and deleted["texts"] == 0
    assert set(RequestRecord.objects.values_list("id", flat=True)) == {"r0", "r6"}


@pytest.mark.django_db
def test_texts_expire_before_their_record_and_take_what_decisions_quote_along():
    cache = {"stage": "cache", "choice": "semantic", "reason": "a question 0.97 similar was answered; SECRET differs"}
    values = {"similarity": 0.97, "cached_question": "the SECRET", "verdict": "SECRET"}
    buffer = stores.RecordBuffer()
    for hours in (1, 5, 30):
        at = NOW - hours * 3600
        decisions = ({**cache, "values": values},)
        buffer.save(replace(RECORD, id=f"r{hours}", arrived_at=at, decisions=decisions, answer="SECRET"))
    buffer.flush()
    limits = {"record_retention_days": 7, "prompt_retention_hours": 4, "cache_ttl_s": 3600, "task_retention_days": 30}
    assert stores.delete_old(NOW, **limits)["texts"] == 2
    assert stores.delete_old(NOW, **limits)["texts"] == 0
    fresh, *expired = RequestRecord.objects.order_by("-arrived_at")
    assert fresh.answer == "SECRET" and fresh.decisions[0]["values"] == values
    for row in expired:
        assert (row.prompt_original, row.prompt_sent, row.answer) == ("", "", "")
        assert row.decisions[0]["values"] == {"similarity": 0.97} and "SECRET" not in str(row.decisions)
        assert row.output_tokens == 40 and row.total_s == 1.3


@pytest.mark.django_db
def test_measurements_are_kept_but_not_the_simulated_ones(seeded):
    assert stores.save_measurement("ollama", "tinyllama", footprint_mb=911.5, load_s=0.0)
    row = LanguageModel.objects.get(name="tinyllama")
    assert (row.measured_footprint_mb, row.measured_load_s) == (911.5, None)
    assert not stores.save_measurement("simulated", "tinyllama", footprint_mb=1.0)
    assert not stores.save_measurement("ollama", "unknown", footprint_mb=1.0)


@pytest.mark.django_db
def test_the_node_started_last_is_the_active_one():
    stores.node_started("ollama", "http://127.0.0.1:11434")
    stores.node_started("llamacpp")
    assert queries.active_node().name == "llamacpp"
    assert queries.active_node().threshold_defaults == {"gpu_memory_mb": EMBEDDED_MEMORY_MB}
    stores.node_state("llamacpp", "lost", "no answer")
    assert Node.objects.get(name="llamacpp").state_reason == "no answer"
    Node.objects.filter(name="ollama").update(enabled=False)
    with pytest.raises(ConfigurationError, match="'ollama' is switched off"):
        stores.node_started("ollama")
    with pytest.raises(ThresholdError):
        stores.node_started("llamacpp", threshold_defaults={"gpu_memory_mb": -1})


def cached(key: str, **others) -> CacheEntry:
    values = {
        "partition": "p", "agent": "scout", "group": "agent:scout", "model": "tinyllama", "question": "why?",
        "text": "so", "thinking": "", "done_reason": "stop", "prompt_tokens": 5, "output_tokens": 2,
        "embedding": np.array([0.6, 0.8], np.float32), "stored_at": NOW,
    }  # fmt: skip
    return CacheEntry(key=key, **values | others)


@pytest.mark.django_db
def test_cached_answers_come_back_after_a_restart():
    buffer = stores.CacheBuffer()
    buffer.put(cached("a"))
    buffer.put(cached("b", embedding=None, stored_at=NOW - 1))
    assert buffer.flush() == 2
    b, a = stores.load_cache()
    assert (a.key, b.key, b.embedding) == ("a", "b", None)
    assert a.embedding.tolist() == pytest.approx([0.6, 0.8])
    cache = ResponseCache(10, 3600)
    for entry in (b, a):
        cache.put(entry, NOW)
    assert cache.get_exact("a", NOW).entry.text == "so"


@pytest.mark.django_db
def test_the_last_word_on_a_cached_answer_counts():
    buffer = stores.CacheBuffer()
    buffer.put(cached("a", text="old"))
    buffer.put(cached("b"))
    buffer.flush()
    buffer.delete(["b"])
    buffer.put(cached("a", text="new"))
    buffer.put(cached("c"))
    buffer.delete(["c"])
    buffer.flush()
    assert [(entry.key, entry.text) for entry in stores.load_cache()] == [("a", "new")]


@pytest.mark.django_db
def test_an_invalidated_answer_is_gone_until_it_is_stored_anew():
    buffer = stores.CacheBuffer()
    buffer.put(cached("a"))
    buffer.flush()
    version = queries.state_version()
    assert cached_answers.invalidate(CachedAnswer.objects.all(), actor="ann") == 1
    assert queries.state_version() > version
    assert queries.invalidated_answers() == {"a"}
    assert stores.load_cache() == []
    buffer.put(cached("a", text="fresh"))
    buffer.flush()
    assert queries.invalidated_answers() == frozenset()
    assert stores.load_cache()[0].text == "fresh"


@pytest.mark.django_db
def test_hits_are_kept():
    buffer = stores.CacheBuffer()
    buffer.put(cached("a"))
    buffer.flush()
    assert stores.save_hits([cached("a", hits=3), cached("never stored", hits=1)]) == 1
    assert stores.save_hits([cached("a", hits=3)]) == 0
    assert stores.load_cache()[0].hits == 3


@pytest.mark.django_db(transaction=True)
def test_a_flush_in_a_thread_and_a_change_elsewhere_do_not_lose_each_other():
    """Two writers on one SQLite file: each waits for the other."""
    buffer = stores.RecordBuffer()
    for number in range(1_500):
        buffer.save(replace(RECORD, id=f"r{number}"))

    def flush() -> int:
        try:
            return buffer.flush()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(flush)
        for number in range(30):
            stores.save_metrics([stores.MetricPoint("m", NOW + 60 * number, 1, 1.0, 1.0, 1.0)])
        assert flushing.result() == 1_500
    assert RequestRecord.objects.count() == 1_500
    assert Metric.objects.count() == 30
