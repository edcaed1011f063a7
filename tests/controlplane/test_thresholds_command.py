"""The journey by command: record an hour, replay it with a change, apply it, see the effect, roll back."""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.utils import timezone

from controlplane import stores, thresholds
from controlplane.management.commands import replay as replay_command
from controlplane.models import AuditEntry, ThresholdRevision
from optimizer.core.thresholds import Thresholds, as_dict
from tests.controlplane.test_replay_command import MODELS, called
from tests.controlplane.test_stores import RECORD


def ended(count: int, until: float, took_s: float, name: str) -> None:
    """`count` requests, one every 10 s, the last at `until`."""
    buffer = stores.RecordBuffer()
    for n in range(count):
        at = until - n * 10.0 - 1.0
        buffer.save(replace(RECORD, id=f"{name}{n}", model=MODELS[n % 3], arrived_at=at, total_s=took_s))
    buffer.flush()


@pytest.mark.usefixtures("seeded")
def test_record_replay_set_effect_and_roll_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay_command.os, "nice", lambda _: None)
    now, file = time.time(), tmp_path / "hour.jsonl"
    ended(180, now - 1800, 6.0, "before")
    called("record", "--hours", "2", "--out", str(file))
    data = json.loads(called("replay", str(file), "--set", "stay=30", "--json")[0])
    assert data["change"] == {"stay": 30.0} and {t["tier"] for t in data["tiers"]} == {"opus", "sonnet", "default"}

    made = json.loads(called("thresholds", "set", "stay=30", "--reason", "as replayed", "--json")[0])
    assert made["changes"] == {"stay": [15.0, 30.0]} and thresholds.current().stay == 30.0
    ThresholdRevision.objects.filter(pk=made["revision"]).update(at=timezone.now() - timedelta(minutes=30))
    ended(90, now, 3.0, "since")
    effect = json.loads(called("thresholds", "effect", "--json")[0])
    assert (effect["before"]["mean_s"], effect["after"]["mean_s"]) == (6.0, 3.0)
    assert effect["after"]["requests"] == 90 and 1790 < effect["span_s"] < 1830
    assert "6.00       3.00" in called("thresholds", "effect", str(made["revision"]))[0]

    said, _ = called("thresholds", "roll-back", str(made["revision"]))
    assert "stay 30.0 → 15.0" in said and thresholds.current().stay == 15.0
    assert "as replayed" in called("thresholds", "history")[0]
    assert set(AuditEntry.objects.filter(target="thresholds").values_list("actor", flat=True)) == {"command line"}


@pytest.mark.usefixtures("seeded")
def test_what_is_in_force_is_listed_and_what_differs_is_marked():
    called("thresholds", "set", "slots=1", "--reason", "one")
    text, _ = called("thresholds")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("*")] == ["slots"]
    assert json.loads(called("thresholds", "--json")[0]) == {**as_dict(Thresholds()), "slots": 1}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "stay=30"), "say why"),
        (("set", "stay=often", "--reason", "r"), "stay: must be a number"),
        (("set", "stay", "--reason", "r"), "NAME=VALUE"),
        (("set", "--reason", "r"), "say what"),
        (("list", "stay"), "takes nothing more"),
        (("effect",), "no change has been made yet"),
        (("roll-back", "77"), "no revision 77"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(arguments, said):
    with pytest.raises(CommandError, match=said):
        called("thresholds", *arguments)
    assert not ThresholdRevision.objects.exists()
