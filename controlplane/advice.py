"""Hardware advice for this installation: its recorded traffic (or the built-in one) under other hardware, kept as the
result of the chore "advise".

Rule: heavy, so it runs in a process of its own at low priority (`manage.py advise`), once at a time. Only looks; it
changes nothing. Must not know: what is asked (optimizer/simulation/advice.py).
"""

import dataclasses
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from controlplane import chores, recording
from controlplane.models import Chore
from controlplane.own_process import own_process
from optimizer.simulation import advice
from optimizer.simulation.advice import Answer
from optimizer.simulation.hardware import USUAL_CPU, CpuSpeed

CHORE = "advise"


def found(
    cpu: CpuSpeed = USUAL_CPU,
    progress: Callable[[int, int], None] = lambda done, total: None,
    now: float | None = None,
) -> dict[str, Any]:
    """The answers as plain data, and the traffic they rest on. Raises ConfigurationError when nothing can be served."""
    now = time.time() if now is None else now
    in_force, catalogue = recording.setting()
    traffic = recording.lately(now, in_force, catalogue)
    if traffic.enough:
        parts = traffic.parts
        rests_on = f"{traffic.requests} requests recorded in the last {traffic.span_s / 3600:.1f} h"
    else:
        parts = advice.built_in(in_force, catalogue)
        rests_on = (
            f"the built-in traffic of 131 agents at {advice.BUILT_IN_LOAD:.0%} load, because only {traffic.requests} "
            f"requests in {traffic.span_s / 60:.0f} min were recorded"
        )
    answers = advice.advise(parts, in_force, catalogue, cpu, progress)
    return {"recorded": traffic.enough, "rests_on": rests_on, "answers": [_data(answer) for answer in answers]}


def last() -> Chore | None:
    """The row of the chore: how far it is, and the last answers; None before the first time."""
    return Chore.objects.filter(pk=CHORE).first()


def start() -> bool:
    """Start `manage.py advise` beside this process; False when somebody is at it already."""
    if chores.is_held(CHORE):
        return False
    command, environment = own_process("advise", "--quiet")
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    threading.Thread(target=process.wait, daemon=True, name="advise").start()  # so that it leaves no zombie
    return True


def _data(answer: Answer) -> dict[str, Any]:
    return {
        "kind": answer.kind,
        "sentence": answer.sentence,
        "claim": answer.claim,
        "assumed": answer.assumed,
        "worth_it": answer.verdict.accepted,
        "effect": dataclasses.asdict(answer.verdict),
        "before": dataclasses.asdict(answer.before),
        "after": dataclasses.asdict(answer.after),
        "models": {
            name: {"before": dataclasses.asdict(old), "after": dataclasses.asdict(new)}
            for name, (old, new) in answer.models.items()
        },
    }
