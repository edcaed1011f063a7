"""Request records as rows and back. The engine's `Record` is the meaning, the row is how it is kept."""

from typing import Any

from controlplane import storable
from controlplane.models import RequestRecord
from optimizer.ports import Record


def row_of(record: Record) -> RequestRecord:
    """An unsaved row."""
    return RequestRecord(**values_of(record))


def values_of(record: Record) -> dict[str, Any]:
    """A row's values by field; what a database could not store is replaced or cut (`storable`)."""
    return {
        "id": storable.text(record.id, 64),
        "agent": storable.text(record.agent, 60),
        "protocol": storable.text(record.protocol, 12),
        "kind": storable.text(record.kind, 12),
        "wanted": storable.text(record.wanted, 120),
        "model": storable.text(record.model, 120),
        "tier": storable.text(record.tier, 20),
        "status": storable.text(record.status, 12),
        "error": storable.text(record.error, 500),
        "arrived_at": storable.moment(record.arrived_at),
        "queue_s": storable.number(record.queue_s),
        "load_s": storable.number(record.load_s),
        "prefill_s": storable.number(record.prefill_s),
        "decode_s": storable.number(record.decode_s),
        "ttft_s": storable.number(record.ttft_s),
        "total_s": storable.number(record.total_s),
        "prompt_tokens_original": record.prompt_tokens_original,
        "prompt_tokens": record.prompt_tokens,
        "output_tokens": record.output_tokens,
        "cache": storable.text(record.cache, 12),
        "complexity": None if record.complexity is None else storable.number(record.complexity),
        "done_reason": storable.text(record.done_reason, 40),
        "simulated": record.simulated,
        "decisions": storable.json(record.decisions),
        "prompt_original": storable.text(record.prompt_original),
        "prompt_sent": storable.text(record.prompt_sent),
        "answer": storable.text(record.answer),
        "good": record.good,
    }


def record_of(row: RequestRecord) -> Record:
    """The record a row was made from."""
    return Record(
        id=row.id,
        agent=row.agent,
        protocol=row.protocol,
        kind=row.kind,
        wanted=row.wanted,
        model=row.model,
        tier=row.tier,
        status=row.status,
        error=row.error,
        arrived_at=row.arrived_at.timestamp(),
        queue_s=row.queue_s,
        load_s=row.load_s,
        prefill_s=row.prefill_s,
        decode_s=row.decode_s,
        ttft_s=row.ttft_s,
        total_s=row.total_s,
        prompt_tokens_original=row.prompt_tokens_original,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        cache=row.cache,
        complexity=row.complexity,
        done_reason=row.done_reason,
        simulated=row.simulated,
        decisions=tuple(row.decisions),
        prompt_original=row.prompt_original,
        prompt_sent=row.prompt_sent,
        answer=row.answer,
        good=row.good,
    )
