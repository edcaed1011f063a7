"""Replays on request: start one, follow it, stop it; put what it showed into force and take that back.

Rule: a replay runs in a process of its own at low priority (`manage.py carry-out-replay`), which tells the database
how far it is; whoever moves a row's state says from which state, so a replay ends once. What is applied goes the way
of the tuner's suggestions: a revision with author and reason, its effect checked, rolled back by one click.
Must not know: HTTP, how a replay works. Synchronous.
"""

import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from controlplane import recording, storable, suggestions, tuning_cycle
from controlplane.models import Replay, Suggestion, Traffic
from controlplane.own_process import own_process
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import ThresholdError, Thresholds, as_dict, changed
from optimizer.core.tuning import BOUNDS
from optimizer.simulation import compared
from optimizer.simulation.replay import parts_of
from optimizer.simulation.workload import Arrival, from_jsonl

MOST_RUNNING = 2  # at once; they share what the engine leaves
MOST_REQUESTS = 100_000  # in one replay: minutes, not hours
LONGEST_UPLOAD_BYTES = 32 * 1024 * 1024
KEPT, TRAFFIC_KEPT = 100, 20  # the latest; older ones go when a new one comes
LOST_AFTER = timedelta(minutes=10)  # without a sign of life its process is gone
_TOLD_EVERY_S = 0.3
_State = Replay.State


class Cancelled(Exception):
    """Somebody stopped this replay."""


# --- traffic -----------------------------------------------------------------------------------------


def take_in(name: str, text: str, author: str) -> Traffic:
    """Keep imported JSON lines. Raises ConfigurationError naming the line that is wrong."""
    _, catalogue = recording.setting()
    arrivals = from_jsonl(text.splitlines(), catalogue)
    if len(arrivals) > MOST_REQUESTS:
        raise ConfigurationError(f"{len(arrivals)} requests are too many: at most {MOST_REQUESTS} can be replayed")
    span_s = max(arrival.at_s for arrival in arrivals)
    taken = Traffic.objects.create(
        name=storable.text(name, 120) or "traffic.jsonl",
        lines=text,
        requests=len(arrivals),
        span_s=span_s,
        author=author[:150],
    )
    old = list(Traffic.objects.values_list("pk", flat=True)[TRAFFIC_KEPT:])
    Traffic.objects.filter(pk__in=old).delete()
    return taken


# --- starting and stopping -----------------------------------------------------------------------------


def start(
    change: Mapping[str, Any],
    author: str,
    *,
    traffic: Traffic | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Replay:
    """Start a replay of imported traffic, or of what was recorded within [since, until).

    Raises ThresholdError for bad values, and ConfigurationError when it would show nothing or too many run already.
    """
    in_force, _ = recording.setting()
    wanted = as_dict(changed(in_force, change))
    moved = {name: wanted[name] for name in change if wanted[name] != getattr(in_force, name)}
    if not moved:
        raise ConfigurationError("nothing is changed: set at least one threshold to something else than is in force")
    idle = compared.cannot_show(moved)
    if idle:
        raise ThresholdError(dict.fromkeys(idle, "a replay cannot show its effect"))
    find_lost()
    with transaction.atomic():
        running = Replay.objects.filter(state=_State.RUNNING).count()
        if running >= MOST_RUNNING:
            raise ConfigurationError(f"{running} replays are running already; wait for one, or cancel it")
        made = Replay.objects.create(
            traffic=traffic, since=since, until=until, change=moved, author=author[:150], moved_at=timezone.now()
        )
    applied = Replay.objects.filter(suggestion__state=Suggestion.State.APPLIED).values("pk")
    old = list(Replay.objects.exclude(pk__in=applied).values_list("pk", flat=True)[KEPT:])
    Replay.objects.filter(pk__in=old).delete()
    return made


def spawn(replay: Replay) -> None:
    """Carry it out in a process of its own, which outlives this one; a thread waits for its end."""
    command, environment = own_process("carry-out-replay", str(replay.pk))
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    threading.Thread(target=_wait, args=(process, replay.pk), daemon=True, name=str(replay)).start()


def _wait(process: subprocess.Popen[bytes], pk: int) -> None:
    """A process that dies without a word must not look as if it ran."""
    _, complaints = process.communicate()
    said = complaints.decode(errors="replace").strip().splitlines() or ["its process ended without a word"]
    try:
        _end(pk, _State.FAILED, error=said[-1])
    except DatabaseError:
        pass  # the database is away, or the server is going down: `find_lost` says so later
    finally:
        connections.close_all()


def cancel(replay: Replay) -> bool:
    """Stop it; False when it had ended."""
    return _end(replay.pk, _State.CANCELLED)


def find_lost() -> None:
    """Say of replays whose process is gone (a reboot, no memory) that they failed."""
    lost = Replay.objects.filter(state=_State.RUNNING, moved_at__lt=timezone.now() - LOST_AFTER)
    lost.update(state=_State.FAILED, error="its process is gone; run it again")


def _end(pk: int, state: str, **rest: Any) -> bool:
    if "error" in rest:
        rest["error"] = rest["error"][:500]
    running = Replay.objects.filter(pk=pk, state=_State.RUNNING)
    return bool(running.update(state=state, moved_at=timezone.now(), **rest))


# --- in the replay's own process ------------------------------------------------------------------------


def carry_out(replay: Replay) -> str:
    """Do it and keep the result; returns the state it ended in."""
    try:
        result = _result(replay)
    except Cancelled:
        return _State.CANCELLED
    except ConfigurationError as error:
        _end(replay.pk, _State.FAILED, error=str(error))
        return _State.FAILED
    return _State.DONE if _end(replay.pk, _State.DONE, result=storable.json(result)) else _State.CANCELLED


def _result(replay: Replay) -> dict[str, Any]:
    in_force, catalogue = recording.setting()
    if replay.traffic is not None:
        asked, left_out = from_jsonl(replay.traffic.lines.splitlines(), catalogue), 0
    else:
        assert replay.since is not None and replay.until is not None
        taken = recording.recorded(replay.since.timestamp(), replay.until.timestamp())
        asked, left_out = list(taken.arrivals), taken.left_out
    arrivals = recording.usable(asked, catalogue, _smaller(in_force, replay.change))
    if len(arrivals) > MOST_REQUESTS:
        raise ConfigurationError(f"{len(arrivals)} requests are too many, {MOST_REQUESTS} at most: choose less time")
    parts = parts_of(arrivals)
    tell = _Teller(replay.pk, 2 * len(parts))
    found = compared.compare(parts, in_force, replay.change, catalogue, tell.piece_done)
    return {
        **compared.data(found, catalogue),
        "was": {name: getattr(in_force, name) for name in replay.change},
        "setting": compared.setting_of(in_force),
        "requests": len(arrivals),
        "left_out": left_out + len(asked) - len(arrivals),
        "span_s": _span_s(arrivals),
    }


def _smaller(in_force: Thresholds, change: Mapping[str, Any]) -> Thresholds:
    """Of the two settings the one with less memory: what does not fit there cannot be compared."""
    return min(in_force, changed(in_force, change), key=lambda setting: setting.usable_mb)


def _span_s(arrivals: list[Arrival]) -> float:
    times = [arrival.at_s for arrival in arrivals]
    return max(times) - min(times)


class _Teller:
    """Tells the database how far a replay is, a few times a second. Raises Cancelled when it is wanted no more."""

    def __init__(self, pk: int, total: int) -> None:
        self._pk, self._total, self._done, self._told = pk, total, 0, 0.0
        self._tell()

    def piece_done(self) -> None:
        self._done += 1
        if time.monotonic() - self._told > _TOLD_EVERY_S or self._done == self._total:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        running = Replay.objects.filter(pk=self._pk, state=_State.RUNNING)
        if not running.update(done=self._done, total=self._total, moved_at=timezone.now()):
            raise Cancelled


# --- deciding ---------------------------------------------------------------------------------------------


def proved(replay: Replay) -> bool:
    """Whether the tuner itself would propose this change: accepted, and within the tuner's own bounds."""
    within = all(
        name == "order" or (name in BOUNDS and BOUNDS[name][0] <= value <= BOUNDS[name][1])
        for name, value in replay.change.items()
    )
    return bool(replay.state == _State.DONE and replay.result["effect"]["accepted"] and within)


def outdated(replay: Replay) -> list[str]:
    """Thresholds that were changed since the replay, so that it may not show any more what would happen."""
    setting = replay.result.get("setting", {})
    now = compared.setting_of(recording.setting()[0])
    return [name for name, value in now.items() if name in setting and setting[name] != value]


def apply(replay: Replay, actor: str, reason: str) -> Suggestion:
    """Put the change into force.

    Raises ConfigurationError when it cannot be applied (not done, applied already, thresholds moved meanwhile), and
    ThresholdError when no reason is given.
    """
    if not reason.strip():
        raise ThresholdError({"reason": "say why"})
    if replay.state != _State.DONE:
        raise ConfigurationError("only a replay that is done can be applied")
    moved = outdated(replay)
    if moved:
        raise ConfigurationError(f"{', '.join(moved)} was changed since this replay: run it again first")
    with transaction.atomic():
        made = Suggestion.objects.create(
            rule=f"replay-{replay.pk}",
            severity=Suggestion.Severity.MEDIUM,
            title=f"Replayed: {replay.title}"[:200],
            body=reason.strip(),
            change=replay.change,
            evidence={
                "source": tuning_cycle.SOURCE,  # so that the tuner checks what it did
                "replay": replay.pk,
                "verdict": replay.result["effect"],
                "before": replay.result["totals"]["current"],
                "after": replay.result["totals"]["changed"],
                "requests": replay.result["requests"],
                "hours": round(replay.result["span_s"] / 3600.0, 2),
            },
        )
        if not Replay.objects.filter(pk=replay.pk, suggestion=None).update(suggestion=made):
            raise ConfigurationError("this replay was applied already")
        suggestions.apply(made, actor, reason)
    made.refresh_from_db()
    return made


def predicted(replay: Replay) -> dict[str, float]:
    """How many times its present value each figure becomes, by the replay; 1.0 where there is none."""
    old, new = (replay.result["totals"][side] for side in ("current", "changed"))
    return {name: new[name] / old[name] if old[name] else 1.0 for name in old}
