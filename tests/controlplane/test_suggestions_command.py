"""`manage.py suggestions`: the whole way of a suggestion by command."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from controlplane import thresholds
from controlplane.models import AuditEntry, Suggestion

pytestmark = pytest.mark.usefixtures("seeded")


def called(*arguments: str) -> str:
    out = StringIO()
    call_command("suggestions", *arguments, stdout=out)
    return out.getvalue()


def made(**fields: object) -> str:
    fields = {"rule": "tune-stay", "severity": "medium", "title": "stay 15 to 30", "change": {"stay": 30.0}, **fields}
    return str(Suggestion.objects.create(**fields).pk)


def test_a_change_is_listed_applied_and_rolled_back():
    assert "No open suggestion" in called()
    number = made()
    assert "stay 15 to 30  [stay=30.0]" in called()
    assert called("apply", number).startswith(f"{number} applied")
    assert thresholds.current().stay == 30.0
    with pytest.raises(CommandError, match="is applied: cannot apply it"):
        called("apply", number)
    called("roll-back", number)
    assert thresholds.current().stay == 15.0
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {"command line"}
    assert "rolled back" in called("--all") and "No open suggestion" in called()


def test_advice_is_dismissed_and_json_holds_everything():
    number = made(rule="low-hit-rate", change={}, evidence={"hit_rate": 0.1})
    assert "advice only" in called()
    [row] = json.loads(called("--json"))
    assert (row["evidence"], row["state"], row["decided_at"]) == ({"hit_rate": 0.1}, "open", None)
    assert called("dismiss", number).startswith(f"{number} dismissed")


@pytest.mark.parametrize(
    ("arguments", "complaint"), [(["apply"], "say which one"), (["apply", "999"], "no suggestion 999")]
)
def test_what_cannot_be_done_is_said(arguments: list[str], complaint: str):
    with pytest.raises(CommandError, match=complaint):
        called(*arguments)


def test_a_change_that_is_no_longer_allowed_stays_open():
    number = made(change={"stay": -1.0})
    with pytest.raises(CommandError, match="stay: must be from 0"):
        called("apply", number)
    assert Suggestion.objects.get().state == "open"
