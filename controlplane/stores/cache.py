"""Cached answers on disk, so that a restart does not forget them.

Rule: the engine's memory is the truth while it runs; rows follow it. Only an invalidation
(`controlplane.cached_answers`) goes the other way.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from django.db import transaction

from controlplane import storable
from controlplane.models import CachedAnswer
from controlplane.stores.buffer import BATCH, WriteBuffer
from optimizer.core.caching import CacheEntry

MOST_WAITING = 20_000  # puts and deletes
_FLOAT32 = np.dtype("<f4")
_Change = tuple[str, CacheEntry | None]  # key, and the entry to keep or None to delete it


class CacheBuffer:
    """`optimizer.ports.CacheStore`: `put` and `delete` on the event loop, `flush` in a thread."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._changes: WriteBuffer[_Change] = WriteBuffer("cached answers", _write, most)

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def trouble(self) -> str:
        return self._changes.trouble

    def put(self, entry: CacheEntry) -> None:
        self._changes.add((entry.key, entry))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._changes.add((key, None))

    def flush(self) -> int:
        """Write what is waiting; returns the number of puts and deletes done."""
        return self._changes.flush()


def load_cache() -> list[CacheEntry]:
    """Every stored answer that is not invalidated, oldest first; the cache itself drops those past the TTL."""
    rows = CachedAnswer.objects.filter(invalidated_at__isnull=True).order_by("stored_at")
    return [_entry(row) for row in rows.iterator()]


def save_hits(entries: Iterable[CacheEntry]) -> int:
    """Keep how often answers were given again; returns how many rows changed. Now and then is often enough."""
    stored = dict(CachedAnswer.objects.values_list("key", "hits"))
    moved = [CachedAnswer(key=e.key, hits=e.hits) for e in entries if e.key in stored and stored[e.key] != e.hits]
    return CachedAnswer.objects.bulk_update(moved, ["hits"], batch_size=BATCH)


def _write(changes: list[_Change]) -> None:
    last = dict(changes)  # the last word on each key
    keep = [_row(entry) for entry in last.values() if entry is not None]
    gone = [key for key, entry in last.items() if entry is None]
    with transaction.atomic():
        CachedAnswer.objects.bulk_create(
            keep, batch_size=BATCH, update_conflicts=True, unique_fields=["key"], update_fields=_COLUMNS
        )
        _delete(gone)


def _delete(keys: Iterable[str]) -> None:
    keys = [storable.text(key, 128) for key in keys]
    for start in range(0, len(keys), BATCH):
        CachedAnswer.objects.filter(key__in=keys[start : start + BATCH]).delete()


_COLUMNS = [field.name for field in CachedAnswer._meta.concrete_fields if not field.primary_key]


def _row(entry: CacheEntry) -> CachedAnswer:
    embedding = entry.embedding
    return CachedAnswer(
        key=storable.text(entry.key, 128),
        partition=storable.text(entry.partition, 128),
        agent=storable.text(entry.agent, 60),
        group=storable.text(entry.group, 80),
        model=storable.text(entry.model, 120),
        question=storable.text(entry.question),
        text=storable.text(entry.text),
        thinking=storable.text(entry.thinking),
        done_reason=storable.text(entry.done_reason, 40),
        prompt_tokens=entry.prompt_tokens,
        output_tokens=entry.output_tokens,
        embedding=None if embedding is None else np.asarray(embedding, _FLOAT32).tobytes(),
        stored_at=storable.moment(entry.stored_at),
        hits=entry.hits,
    )


def _entry(row: CachedAnswer) -> CacheEntry:
    return CacheEntry(
        key=row.key,
        partition=row.partition,
        agent=row.agent,
        group=row.group,
        model=row.model,
        question=row.question,
        text=row.text,
        thinking=row.thinking,
        done_reason=row.done_reason,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        embedding=None if row.embedding is None else np.frombuffer(bytes(row.embedding), _FLOAT32),
        stored_at=row.stored_at.timestamp(),
        hits=row.hits,
    )
