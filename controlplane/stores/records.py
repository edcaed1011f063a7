"""Request records and last uses of keys, on their way to the database."""

from django.db import DatabaseError, transaction

from controlplane import storable
from controlplane.models import AgentKey, RequestRecord
from controlplane.record_rows import values_of
from controlplane.stores.buffer import WriteBuffer
from controlplane.stores.insert import insert
from optimizer.ports import Record

MOST_WAITING = 10_000  # records; some 50 MB at 5 kB each


class RecordBuffer:
    """`optimizer.ports.RecordStore`: `save` on the event loop, `flush` in a thread every half second."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._records: WriteBuffer[Record] = WriteBuffer("request records", _write, most)
        self._used: dict[str, float] = {}  # key prefix -> last use

    def __len__(self) -> int:
        return len(self._records)

    @property
    def dropped(self) -> int:
        return self._records.dropped

    @property
    def trouble(self) -> str:
        return self._records.trouble

    def save(self, record: Record) -> None:
        """Buffer one record; never waits."""
        self._records.add(record)

    def key_used(self, prefix: str, now: float) -> None:
        """Note the use of a key; only the last one before a flush is written."""
        self._used[prefix] = now

    def flush(self) -> int:
        """Write what is waiting; returns the number of records written."""
        written = self._records.flush()
        used, self._used = self._used, {}
        try:
            for prefix, at in used.items():
                # Silently: the engine need not read its tables again for this.
                AgentKey.objects.filter(prefix=prefix).update_silently(last_used_at=storable.moment(at))
        except DatabaseError:
            self._used = {**used, **self._used}  # the record buffer has logged that the database is away
        return written


def _write(records: list[Record]) -> None:
    with transaction.atomic():
        # A record written twice (the first commit's answer got lost) counts once.
        insert(RequestRecord, map(values_of, records))
