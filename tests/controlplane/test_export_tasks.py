"""`manage.py export_tasks`: every task that fits, oldest first, with or without its texts."""

import json
import time

import pytest
from django.core.management import CommandError, call_command

from controlplane import durable_tasks
from controlplane.durable_tasks import Line, Once
from controlplane.management.commands import export_tasks
from controlplane.stores import durable
from optimizer.core.request import Priority

pytestmark = pytest.mark.django_db


def exported(tmp_path, *options: str) -> list[dict]:
    out = tmp_path / "tasks.jsonl"
    call_command("export_tasks", "--out", str(out), *options)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_tasks_are_exported_by_filter_with_prompt_and_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(export_tasks, "_ROWS_AT_ONCE", 2)  # so that five rows take three chunks
    now = time.time()
    made = [durable_tasks.accept("scout", {"prompt": f"q{n}"}, Priority.AGENT, Once(), now, 9)[0] for n in range(4)]
    batch, _ = durable_tasks.accept_batch("other", [Line(1, "mine", {"prompt": "qb"})], Once(), now, 9)
    [held] = durable.claim("r1", {Priority.AGENT: 1}, {}, now, 8.0)
    durable.finish(held, "succeeded", now, outcome={"result": {"text": "answer"}, "model": "m"})
    rows = exported(tmp_path)
    assert [row["id"] for row in rows[:4]] == [task.public_id for task in made] and rows[4]["custom_id"] == "mine"
    assert rows[0]["task"] == {"prompt": "q0"} and rows[0]["result"] == {"text": "answer"}
    assert len(exported(tmp_path, "--agent", "scout", "--status", "queued")) == 3
    assert [row["batch"] for row in exported(tmp_path, "--batch", batch.public_id)] == [batch.public_id]
    [bare] = exported(tmp_path, "--status", "succeeded", "--no-text")
    assert bare["model"] == "m" and not {"task", "result", "decisions"} & bare.keys()
    with pytest.raises(CommandError, match="--days"):
        exported(tmp_path, "--days", "0")
    with pytest.raises(CommandError, match="cannot write"):
        call_command("export_tasks", "--out", str(tmp_path))
