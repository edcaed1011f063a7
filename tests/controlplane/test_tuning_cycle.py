"""The tuner proposes what recorded traffic proves, applies it only when told to, and takes back what harms."""

import time
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane import chores, recording, stores, suggestions, thresholds, tuning_cycle
from controlplane.management.commands import tune as command
from controlplane.models import AuditEntry, Suggestion, ThresholdRevision
from optimizer.core.tuning import Candidate, Figures, Verdict
from optimizer.simulation.tuner import Search, Trial
from tests.controlplane.test_stores import RECORD

MODELS = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")
PLAIN = Figures(requests=30, lateness=2.0, mean_s=20.0, p95_s=50.0, within_target=0.5, swaps=9)
CYCLE_S = 300.0


@pytest.fixture
def now() -> float:
    return time.time()


def traffic(end: float, hours: float, every_s: float, total_s: float = 10.0, keys: int = 0) -> None:
    """Recorded requests up to `end`, spread over the three models; with `keys`, every so many are the same."""
    buffer = stores.RecordBuffer()
    for n in range(int(hours * 3600 / every_s)):
        record = replace(
            RECORD, id=f"{end}-{n}", agent=f"a{n % 9}", arrived_at=end - 1.0 - n * every_s,
            model=MODELS[n % keys % 3 if keys else n * n % 7 % 3],
            output_tokens=100 + 37 * n % 400, total_s=total_s,
            decisions=({"stage": "cache", "values": {"key": f"{n % keys}"}},) if keys else (),
        )  # fmt: skip
        buffer.save(record)
    buffer.flush()


def set_to(**values: Any) -> None:
    thresholds.change(values, "anna", "for the test")
    ThresholdRevision.objects.update(at="2020-01-01T00:00Z")  # long ago: nothing rests


@pytest.fixture
def proves(monkeypatch: pytest.MonkeyPatch):
    """`proves(change, ratio)`: what the search finds from now on; nothing without a change."""

    def find(change: dict[str, Any] | None = None, ratio: float = 0.8, others: tuple[dict[str, Any], ...] = ()) -> None:
        def searched(parts, in_force, catalogue, rests, progress) -> Search:
            def trial(its: dict[str, Any], accepted: bool) -> Trial:
                verdict = Verdict(accepted, "proved" if accepted else "worse", ratio, ratio, ratio, 8, len(parts))
                return Trial(Candidate("x", its, "shorter waits"), [replace(PLAIN, lateness=2 * ratio)] * 8, verdict)

            usable = change if change and not set(change) & set(rests) else None
            found = trial(usable, True) if usable else None
            return Search([PLAIN] * 8, [*([found] if found else []), *(trial(o, False) for o in others)], found, [])

        monkeypatch.setattr(tuning_cycle, "search", searched)

    find()
    return find


@pytest.mark.usefixtures("seeded")
def test_a_poor_setting_is_found_out_on_recorded_traffic(now: float):
    """The strategy's adjustment of the TTL, where questions come again every 12 minutes."""
    set_to(cache_ttl_s=600.0)
    traffic(now, hours=2.0, every_s=30.0, keys=24)
    cycle = tuning_cycle.run(now)
    assert cycle.search is not None and len(cycle.search.now) == 8, cycle.said
    [suggestion] = Suggestion.objects.all()
    assert (suggestion.state, suggestion.rule, suggestion.change) == (
        "open",
        "tune-cache-ttl-s",
        {"cache_ttl_s": 900.0},
    )
    assert suggestion.evidence["verdict"]["ratio"] < 0.8 and suggestion.evidence["after"]["cache_hits"] > 0.3
    assert thresholds.current().cache_ttl_s == 600.0  # proposed, not applied
    assert "better in" in suggestion.body and "p95" in suggestion.body


@pytest.mark.usefixtures("seeded")
def test_off_does_nothing_and_little_traffic_says_so(now: float, proves):
    proves({"stay": 30.0})
    assert "too little traffic: 0 requests" in tuning_cycle.run(now).said
    traffic(now, hours=0.1, every_s=1.0)
    assert "too little traffic" in tuning_cycle.run(now).said  # six minutes are no picture of a day
    set_to(tuning_mode="off")
    assert "switched off" in tuning_cycle.run(now).said
    assert not Suggestion.objects.exists()


@pytest.mark.usefixtures("seeded")
def test_one_open_suggestion_a_threshold_with_the_latest_evidence(now: float, proves):
    traffic(now, hours=2.0, every_s=30.0)
    for change, ratio in (({"stay": 30.0}, 0.9), ({"stay": 30.0}, 0.7), ({"stay": 7.5}, 0.8)):
        proves(change, ratio)
        tuning_cycle.run(now)
    old, new = Suggestion.objects.order_by("pk")
    assert (old.state, old.actor, old.severity) == ("dismissed", "narrowgauge", "high")
    assert (new.state, new.change) == ("open", {"stay": 7.5})
    proves(others=({"stay": 7.5},))  # later traffic no longer proves it
    tuning_cycle.run(now)
    new.refresh_from_db()
    assert (new.state, new.actor) == ("dismissed", "narrowgauge")


@pytest.mark.usefixtures("seeded")
def test_what_a_person_refused_or_changed_rests(now: float, proves):
    traffic(now, hours=2.0, every_s=30.0)
    proves({"stay": 30.0})
    tuning_cycle.run(now)
    suggestions.dismiss(Suggestion.objects.get(), "anna")
    assert tuning_cycle.run(now).suggestion is None
    assert tuning_cycle.run(now + 2 * 86_400).said.startswith("too little traffic")
    thresholds.change({"urgent": 3.0}, "anna", "by hand")
    assert tuning_cycle.resting(now + 60.0, thresholds.current()) == {"stay", "urgent"}
    assert tuning_cycle.resting(now + 2 * 86_400, thresholds.current()) == frozenset()


def applied(now: float, proves, change: dict[str, Any]) -> Suggestion:
    """In mode auto a cycle applied `change`."""
    set_to(tuning_mode="auto")
    traffic(now, hours=2.0, every_s=30.0)
    proves(change)
    assert tuning_cycle.run(now).said.startswith("applied")
    return Suggestion.objects.get()


@pytest.mark.usefixtures("seeded")
def test_auto_applies_waits_for_the_effect_and_keeps_what_held(now: float, proves):
    suggestion = applied(now, proves, {"stay": 30.0})
    assert thresholds.current().stay == 30.0 and ThresholdRevision.objects.first().author == "narrowgauge"
    assert "too early" in tuning_cycle.run(now + CYCLE_S).effects[0]
    assert tuning_cycle.run(now + CYCLE_S).said == "waiting for the effect of the last change"
    later = now + 7200.0
    assert "too little traffic to tell" in tuning_cycle.run(later).effects[0]
    traffic(later, hours=1.9, every_s=30.0)
    assert tuning_cycle.run(later).effects[0].endswith(": kept")
    suggestion.refresh_from_db()
    assert suggestion.state == "applied" and suggestion.evidence["effect"]["verdict"] == "kept"
    assert tuning_cycle.run(later).effects == ()  # judged once


@pytest.mark.usefixtures("seeded")
def test_auto_rolls_a_planted_bad_change_back(now: float, proves):
    suggestion = applied(now, proves, {"stay": 60.0})
    later = now + 7200.0
    traffic(later, hours=1.9, every_s=30.0, total_s=25.0)  # reality: 2.5 times as slow on the same traffic
    assert tuning_cycle.run(later).effects[0].endswith("worse; rolled back")
    suggestion.refresh_from_db()
    assert (suggestion.state, suggestion.actor, thresholds.current().stay) == ("rolled_back", "narrowgauge", 15.0)
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"applied", "effect", "rolled_back"}
    assert "stay" in tuning_cycle.resting(later, thresholds.current())


@pytest.mark.usefixtures("seeded")
def test_in_suggest_mode_people_take_a_bad_change_back_themselves(now: float, proves):
    applied(now, proves, {"stay": 60.0})
    set_to(tuning_mode="suggest")
    later = now + 7200.0
    traffic(later, hours=1.9, every_s=30.0, total_s=25.0)
    tuning_cycle.run(later)
    undo = Suggestion.objects.get(rule__startswith="undo-")
    assert (undo.state, undo.change, thresholds.current().stay) == ("open", {"stay": 15.0}, 60.0)
    assert suggestions.apply(undo, "anna") and thresholds.current().stay == 15.0


@pytest.mark.usefixtures("seeded")
def test_a_change_that_people_overruled_is_not_judged(now: float, proves):
    suggestion = applied(now, proves, {"stay": 60.0})
    thresholds.change({"stay": 20.0}, "anna", "by hand")
    proves()
    assert "superseded" in tuning_cycle.run(now + 7200.0).effects[0]
    suggestion.refresh_from_db()
    assert suggestion.state == "applied" and thresholds.current().stay == 20.0


@pytest.mark.usefixtures("seeded")
def test_real_lateness_counts_what_was_never_answered(now: float):
    _, catalogue = recording.setting()
    answered = replace(RECORD, total_s=2.5)  # half of tinyllama's target
    assert tuning_cycle.lateness([answered], catalogue) == 0.5
    assert tuning_cycle.lateness([answered, replace(answered, status="failed")], catalogue) == 5.25
    assert tuning_cycle.lateness([replace(answered, status="rejected")], catalogue) == 0.0


@pytest.mark.usefixtures("seeded")
def test_the_command_says_what_it_did_and_runs_once_at_a_time(now: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command.os, "nice", lambda by: None)
    out = StringIO()
    call_command("tune", stdout=out)
    assert "too little traffic" in out.getvalue()
    assert chores.take("tune") is not None  # by this very process, which is alive
    with pytest.raises(CommandError, match="running already"):
        call_command("tune")
    out = StringIO()
    call_command("tune", "--due", stdout=out)
    assert out.getvalue() == ""
