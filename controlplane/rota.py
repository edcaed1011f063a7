"""The rota: what Narrowgauge does for itself in the background, how often, and the one way to do it.

Rule: whoever comes first does a chore (controlplane/chores.py): the engine's own loops while it is alone, Celery when
`REDIS_URL` is set. Then the engine only stands in, for what nobody has done for `STAND_IN` periods. Heavy work runs
in a process of its own at low priority. Synchronous; called in a thread or by a worker.
Must not know: asyncio, Celery.
"""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.conf import settings

from controlplane import chores, stores, thresholds, watch
from controlplane.clock import ClockDoubt
from controlplane.own_process import own_process

log = logging.getLogger("narrowgauge.rota")

TUNE = "tune"
TUNE_LOOK_S = 5.0  # how often it is looked whether a cycle is due; the least that `tuning_cycle_s` may be
STAND_IN = 3.0  # periods
LONGEST_TUNE_S = 3600.0

_clock_doubt = ClockDoubt()  # this process's


@dataclass(frozen=True, slots=True)
class Duty:
    """A chore that is done every `every_s` seconds; `work` says what it did."""

    every_s: float
    work: Callable[[], str]


def _watch() -> str:
    judged = watch.look()
    for reading in judged.fired:
        log.warning("%s: %s", reading.rule, reading.title)
    for rule in judged.cleared:
        log.info("%s: cleared", rule)
    return f"{len(judged.fired)} fired, {len(judged.held)} hold, {len(judged.cleared)} cleared"


def _roll_up() -> str:
    return f"{stores.roll_up_old(time.time())} minutes became hours"


def _retention() -> str:
    if _clock_doubt.justified():
        return "nothing deleted: the clock jumped within the last day"
    limits = thresholds.current()
    deleted = stores.delete_old(
        time.time(),
        record_retention_days=limits.record_retention_days,
        prompt_retention_hours=limits.prompt_retention_hours,
        cache_ttl_s=limits.cache_ttl_s,
        task_retention_days=limits.task_retention_days,
    )
    return ", ".join(f"{count} {kind} deleted" for kind, count in deleted.items())


# Whatever else is to be done in the background gets a line here; both engines take it up.
ROTA: Mapping[str, Duty] = {
    "watch": Duty(60.0, _watch),  # how soon a rule fires or clears
    "roll-up": Duty(3600.0, _roll_up),
    "retention": Duty(3600.0, _retention),
}


def do(name: str, stand_in: bool = False) -> str | None:
    """Do a chore of the rota; what it did, or None when it is not due or somebody else does it."""
    duty = ROTA[name]
    claim = chores.take(name, duty.every_s * (STAND_IN if stand_in else 1.0))
    if claim is None:
        return None
    with chores.held(claim):
        said = duty.work()
        claim.end(said)
    return said


def tune_is_due(stand_in: bool = False) -> bool:
    """Whether a cycle of the tuner should be started now."""
    limits = thresholds.current()
    patience = STAND_IN if stand_in else 1.0
    return limits.tuning_mode != "off" and chores.is_due(TUNE, limits.tuning_cycle_s * patience)


def tune_command() -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a cycle; it claims the chore itself and does nothing when it is too late."""
    return own_process("tune", "--quiet", "--due")


def tune() -> None:
    """Start a cycle when one is due, and wait for its end."""
    if tune_is_due():
        command, environment = tune_command()
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_TUNE_S
        )
        say_of_tune(ran.returncode, ran.stdout, ran.stderr)


def say_of_tune(status: int, said: str, complaints: str) -> None:
    """The log's lines of a cycle that has ended."""
    if status:
        reason = complaints.strip().splitlines() or ["no reason given"]
        log.error("the tuning cycle failed: %s", reason[-1][:300])
        return
    for line in said.splitlines():
        if not line.startswith(" "):  # what it tried is indented
            log.info("tuning cycle: %s", line[:300])


def celery_drives() -> bool:
    """Whether workers are expected to do the rota."""
    return bool(settings.REDIS_URL)
