"""One cycle of the adaptive optimiser: check what was changed, replay what could be, propose or apply the best.

Rule: everything it knows is in the database, so a restart changes nothing. It proposes only what a replay of this
system's own traffic proved (optimizer/core/tuning.py), applies only in mode "auto", one change at a time, and takes
back what turned out worse. Synchronous and heavy: run it in a process of its own (`manage.py tune`).
Must not know: how a replay works, who looks at suggestions.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q

from controlplane import audit, recording, storable, suggestions
from controlplane.models import Suggestion, ThresholdRevision
from optimizer.core import tuning
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import COOLDOWN_CYCLES, Figures
from optimizer.ports import Record
from optimizer.simulation.replay import REPLAYABLE, UNANSWERED, parts_of, replay
from optimizer.simulation.tuner import Search, Trial, search

SOURCE = "tuner"  # in a suggestion's evidence: who made it
EFFECT_CYCLES = 3  # cycles after a change before its effect is judged
EFFECT_REQUESTS = 30
EFFECT_GIVEN_UP = timedelta(days=1)  # too little traffic by then: it stays unclear
REST_AFTER_REFUSAL = timedelta(days=1)  # what people dismissed or reality disproved is not tried again sooner
OFF, SUGGEST, AUTO = "off", "suggest", "auto"

_State = Suggestion.State


@dataclass(frozen=True, slots=True)
class Cycle:
    """What a cycle did, for the log and the command."""

    mode: str
    said: str
    effects: tuple[str, ...] = ()
    search: Search | None = None
    suggestion: int | None = None


def run(now: float | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> Cycle:
    """Do one cycle. `now` in seconds since the epoch. Raises ConfigurationError when there is nothing to serve."""
    now = time.time() if now is None else now
    in_force, catalogue = recording.setting()
    mode = in_force.tuning_mode
    if mode == OFF:
        return Cycle(mode, "tuning is switched off")
    effects = tuple(_check(suggestion, now, in_force, catalogue) for suggestion in _unchecked())
    in_force, catalogue = recording.setting()  # a check may have rolled something back
    if mode == AUTO and _unchecked():
        return Cycle(mode, "waiting for the effect of the last change", effects)
    traffic = recording.lately(now, in_force, catalogue)
    if not traffic.enough:
        said = f"too little traffic: {traffic.requests} requests in {traffic.span_s / 60:.0f} min"
        return Cycle(mode, said, effects)
    done = search(traffic.parts, in_force, catalogue, resting(now, in_force), progress)
    _withdraw(done, in_force)
    if done.found is None:
        return Cycle(mode, f"none of {len(done.trials)} changes proved better", effects, done)
    suggestion = _propose(done.found, done, in_force, traffic.requests, traffic.span_s)
    said = f"proposed: {suggestion.title}"
    if mode == AUTO and suggestions.apply(suggestion, audit.SYSTEM):
        said = f"applied: {suggestion.title}"
    return Cycle(mode, said, effects, done, suggestion.pk)


def resting(now: float, in_force: Thresholds) -> frozenset[str]:
    """Thresholds that were touched lately, by whomever, or whose change was refused."""
    moment = storable.moment(now)
    lately = moment - timedelta(seconds=COOLDOWN_CYCLES * in_force.tuning_cycle_s)
    names = {name for revision in ThresholdRevision.objects.filter(at__gte=lately) for name in revision.changes}
    refused = Suggestion.objects.filter(
        Q(state=_State.ROLLED_BACK) | Q(state=_State.DISMISSED) & ~Q(actor=audit.SYSTEM),
        evidence__source=SOURCE,
        decided_at__gte=moment - REST_AFTER_REFUSAL,
    )
    return frozenset(names.union(*(suggestion.change for suggestion in refused)))


# --- proposing ---------------------------------------------------------------------------------------


def _rule(change: Mapping[str, Any]) -> str:
    return "tune-" + "-".join(sorted(change)).replace("_", "-")


def _propose(trial: Trial, done: Search, in_force: Thresholds, requests: int, span_s: float) -> Suggestion:
    """The open suggestion for this change: the one there is with fresh evidence, or a new one."""
    change = dict(trial.candidate.change)
    found = Suggestion.objects.filter(rule=_rule(change), state=_State.OPEN).first()
    if found is not None and found.change != change:
        suggestions.dismiss(found, audit.SYSTEM)
        found = None
    suggestion = found or Suggestion(rule=_rule(change), change=change)
    verdict, old, new = trial.verdict, _average(done.now), _average(trial.figures)
    steps = ", ".join(f"{name} {_shown(getattr(in_force, name))} → {_shown(value)}" for name, value in change.items())
    suggestion.severity = Suggestion.Severity.HIGH if verdict.ratio < 0.8 else Suggestion.Severity.MEDIUM
    suggestion.title = f"{steps}: {1 - verdict.ratio:.0%} less latency"[:200]
    suggestion.body = (
        f"{trial.candidate.why.capitalize()}. Replayed on {requests} requests of the last {span_s / 3600:.1f} h: "
        f"latency relative to target x{verdict.ratio:.2f} (95 %: x{verdict.low:.2f} to x{verdict.high:.2f}), better "
        f"in {verdict.better_in} of {verdict.pieces} pieces. Mean {old['mean_s']:.1f} → {new['mean_s']:.1f} s, "
        f"p95 {old['p95_s']:.1f} → {new['p95_s']:.1f} s, within target {old['within_target']:.0%} → "
        f"{new['within_target']:.0%}, swaps {old['swaps']:.0f} → {new['swaps']:.0f} a piece."
    )
    suggestion.evidence = {
        "source": SOURCE,
        "verdict": dataclasses.asdict(verdict),
        "before": old,
        "after": new,
        "requests": requests,
        "hours": round(span_s / 3600.0, 2),
    }
    suggestion.save()
    return suggestion


def _withdraw(done: Search, in_force: Thresholds) -> None:
    """Open suggestions that the latest traffic no longer proves."""
    accepted = [dict(trial.candidate.change) for trial in done.trials if trial.verdict.accepted]
    for suggestion in Suggestion.objects.filter(state=_State.OPEN, evidence__source=SOURCE, rule__startswith="tune-"):
        if suggestion.change not in accepted:
            suggestions.dismiss(suggestion, audit.SYSTEM)


def _average(figures: Iterable[Figures]) -> dict[str, float]:
    rows = [dataclasses.asdict(f) for f in figures]
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the effect ----------------------------------------------------------------------------------------


def _unchecked() -> list[Suggestion]:
    """Applied changes of the tuner whose effect is not known yet, oldest first."""
    applied = Suggestion.objects.filter(state=_State.APPLIED, evidence__source=SOURCE, revision__isnull=False)
    return list(applied.exclude(evidence__has_key="effect").order_by("decided_at"))


def _check(suggestion: Suggestion, now: float, in_force: Thresholds, catalogue: Catalogue) -> str:
    """Judge one change by what happened since; returns a sentence."""
    assert suggestion.decided_at is not None
    if any(getattr(in_force, name) != value for name, value in suggestion.change.items()):
        return _note(suggestion, {"verdict": "superseded"})
    changed_at = suggestion.decided_at.timestamp()
    age_s = now - changed_at
    if age_s < EFFECT_CYCLES * in_force.tuning_cycle_s:
        return f"{suggestion.title}: too early to tell"
    without = changed(in_force, _undone(suggestion))
    span_s = min(age_s, recording.HOURS * 3600.0)
    before, after = (list(recording.records(start, start + span_s)) for start in (changed_at - span_s, changed_at))
    replayed = [0.0, 0.0]
    if set(suggestion.change) <= REPLAYABLE:
        spans = ((changed_at - span_s, changed_at), (changed_at, changed_at + span_s))
        replayed = [_replayed(since, until, without, catalogue) for since, until in spans]
    effect = tuning.check_effect(
        lateness(before, catalogue),
        lateness(after, catalogue),
        *replayed,
        min(len(before), len(after)),
        EFFECT_REQUESTS,
    )
    if effect.verdict == "unclear" and age_s < EFFECT_GIVEN_UP.total_seconds():
        return f"{suggestion.title}: too little traffic to tell"
    said = _note(suggestion, {**dataclasses.asdict(effect), "requests": len(after)})
    if effect.verdict == "worse":
        if in_force.tuning_mode == AUTO:
            suggestions.roll_back(suggestion, audit.SYSTEM)
            return f"{said}; rolled back"
        _propose_undo(suggestion, effect)
    return said


def _note(suggestion: Suggestion, effect: dict[str, Any]) -> str:
    suggestion.evidence = {**suggestion.evidence, "effect": effect}
    Suggestion.objects.filter(pk=suggestion.pk).update(evidence=suggestion.evidence)
    audit.record(audit.SYSTEM, "effect", f"suggestion {suggestion.pk}", title=suggestion.title, **effect)
    return f"{suggestion.title}: {effect['verdict']}"


def _undone(suggestion: Suggestion) -> dict[str, Any]:
    """The values that the change replaced."""
    assert suggestion.revision is not None
    return {name: values[0] for name, values in suggestion.revision.changes.items()}


def _propose_undo(suggestion: Suggestion, effect: tuning.Effect) -> None:
    """In mode "suggest" people take a change back themselves."""
    rule = f"undo-{suggestion.pk}"
    if Suggestion.objects.filter(rule=rule).exists():
        return
    Suggestion.objects.create(
        rule=rule,
        severity=Suggestion.Severity.HIGH,
        title=f"Take back: {suggestion.title}"[:200],
        body=f"Since the change latency relative to target is {effect.after:.2f}; {effect.expected:.2f} was to be "
        "expected without it.",
        change=_undone(suggestion),
        evidence={"source": SOURCE, "undoes": suggestion.pk, **dataclasses.asdict(effect)},
    )


def _replayed(since: float, until: float, setting: Thresholds, catalogue: Catalogue) -> float:
    """Mean lateness of a time's traffic in the replay; 0.0 when it cannot be replayed."""
    arrivals = recording.usable(recording.recorded(since, until).arrivals, catalogue, setting)
    try:
        figures = [replayed.figures for replayed in replay(parts_of(arrivals, 1), setting, catalogue)]
    except ConfigurationError:
        return 0.0
    return sum(f.lateness for f in figures) / len(figures)


def lateness(records: Iterable[Record], catalogue: Catalogue) -> float:
    """Real mean of latency / target, as replay.figures counts it; 0.0 of nothing."""
    values = []
    for record in records:
        if record.model in catalogue.models and record.status != "rejected":
            times = record.total_s / catalogue.tier_of(record.model).target_s
            values.append(times if record.status == "replied" else max(UNANSWERED, times))
    return sum(values) / len(values) if values else 0.0
