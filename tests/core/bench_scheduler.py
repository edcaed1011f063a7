"""What a decision costs with a long queue; not a test, as no assertion on time is safe on a shared machine.

python -m tests.core.bench_scheduler [WAITING]
"""

import random
import sys
import time
import tracemalloc

from optimizer.core import events as ev
from optimizer.core.commands import StartGeneration
from optimizer.core.fleet import Fleet
from optimizer.core.job import Job
from optimizer.core.scheduler import Scheduler
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from tests.core.machine import DEEPSEEK, QWEN, TINY

DECISIONS = 8000
AGENTS = 131


def filled(waiting: int, order: str = "wfq") -> tuple[Scheduler, float]:
    """A scheduler with tinyllama and qwen loaded and `waiting` requests over all three models."""
    choose = random.Random(1)
    scheduler = Scheduler(
        Thresholds(max_waiting=1_000_000, max_waiting_per_agent=100_000, order=order), STRATEGY_CATALOGUE
    )
    scheduler.handle(ev.ResidencyObserved((ev.Resident(TINY, 800, 800), ev.Resident(QWEN, 2500, 2500))), 0.0)
    now = 0.0
    for number in range(waiting):
        now += 1e-4
        model = choose.choice([TINY, QWEN, DEEPSEEK])
        agent = f"agent-{choose.randrange(AGENTS)}"
        job = Job(str(number), agent, model, choose.randrange(2000), choose.randrange(1, 900), target_s=30.0)
        scheduler.handle(ev.RequestArrived(job), now)
    return scheduler, now


def decision_us(scheduler: Scheduler, now: float) -> float:
    """Mean CPU time of one `handle`, microseconds: a run ends (another starts), a request arrives, in turn."""
    running = [slot.job_id for slot in scheduler.snapshot(now).slots]
    began = time.process_time()
    for number in range(DECISIONS // 2):
        now += 0.001
        commands = scheduler.handle(ev.GenerationFinished(running.pop(0), 100, 100, 0.1, 1.0), now)
        running += [command.job_id for command in commands if isinstance(command, StartGeneration)]
        job = Job(f"new-{number}", f"agent-{number % AGENTS}", TINY, 100, 100, target_s=5.0)
        scheduler.handle(ev.RequestArrived(job), now)
    return (time.process_time() - began) / DECISIONS * 1e6


def fleet_decision_us(nodes: int, waiting: int) -> float:
    """As `decision_us`, of a fleet whose nodes share the queue: where to put it is part of the decision."""
    choose = random.Random(1)
    names = [f"n{number}" for number in range(nodes)]
    limits = Thresholds(max_waiting=1_000_000, max_waiting_per_agent=100_000)
    fleet = Fleet(dict.fromkeys(names, limits), STRATEGY_CATALOGUE)
    for name in names:
        fleet.handle(ev.ResidencyObserved((ev.Resident(TINY, 800, 800), ev.Resident(QWEN, 2500, 2500))), 0.0, name)
    running: list[tuple[str, str]] = []
    now = 0.0

    def handle(event: ev.Event, node: str = "") -> None:
        running.extend((at, c.job_id) for at, c in fleet.handle(event, now, node) if isinstance(c, StartGeneration))

    for number in range(waiting):
        now += 1e-4
        model = choose.choice([TINY, QWEN, DEEPSEEK])
        agent = f"agent-{choose.randrange(AGENTS)}"
        handle(
            ev.RequestArrived(Job(str(number), agent, model, choose.randrange(2000), choose.randrange(1, 900), 30.0))
        )
    began = time.process_time()
    for number in range(DECISIONS // 2):
        now += 0.001
        node, job_id = running.pop(0)
        handle(ev.GenerationFinished(job_id, 100, 100, 0.1, 1.0), node)
        handle(ev.RequestArrived(Job(f"new-{number}", f"agent-{number % AGENTS}", TINY, 100, 100, 5.0)))
    return (time.process_time() - began) / DECISIONS * 1e6


def main(waiting: int) -> None:
    for order in ("wfq", "shortest", "fifo"):
        print(f"{order}: {decision_us(*filled(waiting, order)):.1f} us a decision with {waiting} waiting")
    for nodes in (1, 2, 4):
        print(f"{nodes} nodes: {fleet_decision_us(nodes, waiting // 10):.1f} us a decision, {waiting // 10} waiting")
    scheduler, now = filled(1000)
    began = time.process_time()
    for _ in range(100):
        scheduler.snapshot(now)
    print(f"snapshot: {(time.process_time() - began) * 10:.2f} ms with 1000 waiting")
    tracemalloc.start()
    kept = filled(waiting)
    print(f"memory: {tracemalloc.get_traced_memory()[0] / waiting:.0f} bytes a waiting request, its Job included")
    del kept


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
