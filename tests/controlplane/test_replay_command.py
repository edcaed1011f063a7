"""Record an hour from the database, replay it with a change, see the difference."""

import json
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from controlplane import stores
from controlplane.management.commands import replay as command
from controlplane.models import RequestRecord
from tests.controlplane.test_stores import RECORD

MODELS = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")


@pytest.fixture(autouse=True)
def at_normal_priority(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The command lowers its process's priority, which would stay on the tests."""
    asked: list[int] = []
    monkeypatch.setattr(command.os, "nice", asked.append)
    return asked


@pytest.fixture
def traffic(seeded) -> float:
    """Four hours of records, one request a minute."""
    buffer, now = stores.RecordBuffer(), time.time()
    for n in range(240):
        at = now - n * 60.0 - 1.0
        buffer.save(replace(RECORD, id=f"r{n}", model=MODELS[n % 3], arrived_at=at, output_tokens=200))
    buffer.flush()
    return now


def called(name: str, *arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(name, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("traffic")
def test_an_hour_is_recorded_replayed_and_compared(tmp_path: Path, at_normal_priority: list[int]):
    file, page = tmp_path / "hour.jsonl", tmp_path / "page.html"
    _, said = called("record", "--hours", "4", "--out", str(file))
    assert said.strip() == "240 requests recorded"
    assert RECORD.prompt_original not in file.read_text() and len(file.read_text().splitlines()) == 240
    text, _ = called(
        "replay", str(file), "--set", "order=fifo", "--set", "stay=0", "--set", "urgent=0", "--html", str(page)
    )
    assert "order=fifo, stay=0.0, urgent=0.0: latency / target x" in text and "of 8 pieces" in text
    assert "current" in text and "changed" in text and "plotly" in page.read_text()
    assert at_normal_priority == [command.LOW_PRIORITY]
    data = json.loads(called("replay", str(file), "--set", "stay=15", "--json")[0])
    assert data["effect"]["ratio"] == 1.0 and len(data["pieces"]) == 8
    assert set(data["policies"]) == {"current", "changed"}


@pytest.mark.usefixtures("traffic")
def test_what_a_replay_cannot_show_is_said(tmp_path: Path):
    file = tmp_path / "hour.jsonl"
    called("record", "--hours", "1", "--out", str(file))
    _, said = called("replay", str(file), "--set", "temperature=0.1")
    assert "a replay cannot show the effect of temperature" in said
    for arguments, complaint in (
        (["--set", "stay"], "NAME=VALUE"),
        (["--set", "stay=often"], "must be a number"),
        (["--set", "stay=3", "--pieces", "0"], "--pieces"),
    ):
        with pytest.raises(CommandError, match=complaint):
            called("replay", str(file), *arguments)
    with pytest.raises(CommandError, match="cannot read"):
        called("replay", str(tmp_path / "none.jsonl"), "--set", "stay=3")


@pytest.mark.django_db
def test_nothing_to_record_is_said():
    RequestRecord.objects.all().delete()
    with pytest.raises(CommandError, match="no usable request"):
        called("record", "--hours", "1")
    with pytest.raises(CommandError, match="--hours"):
        called("record", "--hours", "0")
