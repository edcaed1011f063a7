"""`manage.py advise` on this installation's own traffic, and the answers it keeps for the page."""

import json
import time
from dataclasses import replace
from functools import partial
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from controlplane import advice, chores, stores
from controlplane.management.commands import advise as command
from controlplane.models import Chore
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.simulation import advice as core
from tests.controlplane.test_stores import RECORD

pytestmark = pytest.mark.usefixtures("seeded")
MODELS = tuple(STRATEGY_CATALOGUE.models)


@pytest.fixture(autouse=True)
def quick_and_at_normal_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.os, "nice", lambda by: None)
    monkeypatch.setattr(core, "built_in", partial(core.built_in, piece_s=60.0))


def advised(*arguments: str) -> str:
    out = StringIO()
    call_command("advise", "--quiet", *arguments, stdout=out)
    return out.getvalue()


def recorded(count: int) -> None:
    buffer, now = stores.RecordBuffer(), time.time()
    for n in range(count):
        model = MODELS[n % 3]
        buffer.save(replace(RECORD, id=f"r{n}", model=model, arrived_at=now - 1.0 - 20.0 * n, output_tokens=300))
    buffer.flush()


def test_too_little_traffic_is_said_and_the_built_in_one_is_asked():
    recorded(20)
    text = advised()
    assert "Rests on the built-in traffic of 131 agents at 80% load, because only 20 requests in 6 min" in text
    assert "a deepseek-r1:8b quantisation of at most 2880 MB would fit beside tinyllama" in text


def test_recorded_traffic_is_replayed_and_the_answers_are_kept():
    recorded(240)
    found = json.loads(advised("--json"))
    assert found["recorded"] and found["rests_on"] == "240 requests recorded in the last 1.3 h"
    assert {answer["kind"] for answer in found["answers"]} >= {"vram", "quantisation", "node"}
    for answer in found["answers"]:
        assert answer["before"]["requests"] == 240 and answer["assumed"]
    row = advice.last()
    assert row is not None and row.result == found and not row.failed and not chores.is_held(advice.CHORE)


def test_it_is_worked_out_once_at_a_time_and_says_what_failed(monkeypatch: pytest.MonkeyPatch):
    claim = chores.take(advice.CHORE)
    with pytest.raises(CommandError, match="already"):
        advised()
    assert not advice.start()
    claim.end("done")
    monkeypatch.setattr(advice, "found", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        advised()
    row = Chore.objects.get(pk=advice.CHORE)
    assert row.failed and row.said == "failed: division by zero" and row.owner == ""


def test_a_wrong_option_is_refused():
    with pytest.raises(CommandError, match="shares above 0"):
        advised("--cpu", "0", "1")
