"""Each rule on traffic that the real engine recorded: a quarter of an hour of requests through pipeline, scheduler and
runner on the simulated card, on a virtual clock, stored as production stores it. It fires, it stays quiet, it clears.

tests/controlplane/test_watch.py has the limits to the number.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controlplane import queries, series, stores, watch
from controlplane.models import Suggestion
from optimizer.backends.simulated import SimulatedBackend
from optimizer.core.errors import NarrowgaugeError
from optimizer.core.request import AgentProfile, Kind, Message, Priority, Request
from optimizer.core.rules import WINDOW_S
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE, ModelSpec
from optimizer.machine import MachineModel
from optimizer.pipeline import Pipeline
from optimizer.ports import LoadReport
from optimizer.runner import Runner
from tests import virtual_time
from tests.test_runner import Memory

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
SAMPLE_S = 5.0


@dataclass(frozen=True)
class Asked:
    """A request at a second of the quarter of an hour."""

    at_s: float
    text: str
    model: str = TINY
    agent: str = "debugger"


class Offloading(SimulatedBackend):
    """A card of which other programs took a part: a quarter of each model lies in main memory."""

    async def load(self, spec: ModelSpec) -> LoadReport:
        report = await super().load(spec)
        return replace(report, vram_mb=0.75 * report.footprint_mb)


@dataclass(frozen=True)
class Quarter:
    """Fifteen minutes of an installation."""

    asked: Iterable[Asked]
    backend: Callable[[], SimulatedBackend] = lambda: SimulatedBackend(probe_timeout_s=3.0)
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # slug -> what is changed of its profile
    thresholds: Thresholds = Thresholds()
    wedged_at_s: float | None = None

    def record(self, start: float) -> None:
        """Live through it from `start` on, seconds since the epoch, and store what the engine recorded."""
        agents = queries.agent_profiles()
        for slug, changes in self.agents.items():
            agents[slug] = replace(agents[slug], **changes)
        memory, runner = virtual_time.run(lambda clock: self._lived(start, clock, agents))
        buffer = stores.RecordBuffer()
        for record in memory.records:
            buffer.save(record)
        buffer.flush()
        series.save(runner.journal.monitor.meter.drain())
        for model, measured in runner.journal.measured.items():
            prefill_tps, decode_tps = measured.speeds
            load = measured.load
            figures = (
                {"footprint_mb": load.footprint_mb, "vram_mb": load.vram_mb, "load_s": load.load_s} if load else {}
            )
            # Under Ollama's name, for which the card stands here: what the simulated one measures is not kept.
            stores.save_measurement("ollama", model, **figures, prefill_tps=prefill_tps, decode_tps=decode_tps)

    async def _lived(
        self, start: float, clock: Callable[[], float], agents: dict[str, AgentProfile]
    ) -> tuple[Memory, Runner]:
        backend, memory = self.backend(), Memory()
        pipeline = Pipeline(
            catalogue=STRATEGY_CATALOGUE, thresholds=self.thresholds, count=lambda text: len(text.split()), embed=None
        )
        runner = Runner(
            backend=backend,
            pipeline=pipeline,
            agents=agents,
            records=memory,
            cache_store=memory,
            clock=clock,
            wall_clock=lambda: start + clock(),
        )
        await runner.start()
        tasks = [asyncio.create_task(_ask(runner, n, asked)) for n, asked in enumerate(self.asked)]
        while clock() < WINDOW_S - 1.0:
            await asyncio.sleep(SAMPLE_S)
            runner.journal.monitor.sample(runner.view()[0])
            if self.wedged_at_s is not None and clock() >= self.wedged_at_s > clock() - SAMPLE_S:
                backend.wedge()
        await runner.close()
        await asyncio.gather(*tasks)
        return memory, runner


async def _ask(runner: Runner, number: int, asked: Asked) -> None:
    await asyncio.sleep(asked.at_s)
    message = (Message("user", asked.text),)
    request = Request(
        id=f"{id(runner)}-{number}", agent=asked.agent, kind=Kind.CHAT, messages=message, wanted=asked.model
    )
    with suppress(NarrowgaugeError):  # the engine closed before its end
        async with aclosing(runner.submit(request)) as replies:
            async for _ in replies:
                pass


def every(seconds: float, text: str, first: float = 0.0, **rest: Any) -> Iterator[Asked]:
    """A request every so often; `{n}` in the text is its number, and values of `rest` may be functions of it."""
    for n in range(int((880.0 - first) / seconds)):
        more = {name: value(n) if callable(value) else value for name, value in rest.items()}
        yield Asked(first + n * seconds, text.format(n=n), **more)


def of(*streams: Iterable[Asked]) -> list[Asked]:
    return [asked for stream in streams for asked in stream]


def machine(**changes: Callable[[ModelSpec], float]) -> Callable[[], SimulatedBackend]:
    """A card whose models differ from what is declared."""
    specs = {
        name: replace(spec, **{which: by(spec) for which, by in changes.items()})
        for name, spec in STRATEGY_CATALOGUE.models.items()
    }
    return lambda: SimulatedBackend(MachineModel(specs=specs))


def offloading(speed: float) -> Callable[[], SimulatedBackend]:
    return lambda: Offloading(speed=speed)


def another(n: int) -> str:
    """One of a few agents that are not the debugger."""
    return ("system-architect", "data-architect", "api-architect")[n % 3]


CALM = Quarter(list(every(10.0, "Write 20 words about bird {n}")))
MIXED = of(
    every(30.0, "Write 60 words about bird {n}"), every(30.0, "Write 60 words about tree {n}", first=15.0, model=QWEN)
)
FLOOD = "Write 300 words about river {n}"

A_FEW = list(every(100.0, "Write 50 words about tree {n}", model=QWEN))
SOME = list(every(30.0, "Write 50 words about lake {n}", model=QWEN, agent=another))


@dataclass(frozen=True)
class Case:
    rule: str
    bad: Quarter
    fine: Quarter
    healed: Quarter = CALM


CASES = (
    Case(
        "slow-response-deepseek-r1-8b",
        Quarter(list(every(30.0, "Write 300 words about bird {n}", model=DEEPSEEK))),
        Quarter(list(every(30.0, "Write 100 words about bird {n}", model=DEEPSEEK))),
        Quarter(list(every(30.0, "Write 80 words about bird {n}", model=DEEPSEEK))),
    ),
    Case(
        "low-hit-rate",
        Quarter(list(every(10.0, "Write 20 words about bird {n}"))),
        Quarter(of(every(20.0, "Write 20 words about bird {n}"), every(20.0, "Write 20 words about birds"))),
        Quarter(of(every(20.0, "Write 20 words about bird {n}"), every(20.0, "Write 20 words about birds"))),
    ),
    Case(
        "many-switches",
        Quarter(list(every(14.0, "Write 20 words about bird {n}", model=lambda n: (QWEN, DEEPSEEK)[n % 2]))),
        Quarter(list(every(14.0, "Write 20 words about bird {n}", model=lambda n: (QWEN, TINY)[n % 2]))),
        Quarter(list(every(60.0, "Write 20 words about bird {n}", model=lambda n: (QWEN, DEEPSEEK)[n % 2]))),
    ),
    Case(
        "queue-growing",
        Quarter(list(every(10.0, "Write 1500 words about bird {n}", model=QWEN))),
        Quarter(list(every(10.0, "Write 150 words about bird {n}", model=QWEN))),
    ),
    Case(
        "agent-starving-debugger",
        Quarter(  # its bound on waiting is out of reach, and the others are just too many
            of(every(5.0, FLOOD, model=QWEN, agent=another), A_FEW),
            agents={"debugger": {"priority": Priority.BATCH, "weight": 0.01}},
            thresholds=changed(Thresholds(), {"longest_waiting_every": 100}),
        ),
        Quarter(of(every(30.0, FLOOD, model=QWEN, agent=another), A_FEW)),
    ),
    Case(
        "agent-hogging-debugger",
        Quarter(of(every(3.5, FLOOD, model=QWEN), SOME)),
        Quarter(of(every(20.0, FLOOD, model=QWEN), SOME)),  # most of the work too, but nobody waits
    ),
    Case(
        "tier-mismatch-system-architect",
        Quarter(list(every(20.0, "Hi {n}", model="auto", agent="system-architect"))),
        Quarter(list(every(20.0, "Hi {n}", model=TINY, agent="system-architect"))),
    ),
    Case(
        "footprint-drift-tinyllama",
        Quarter(MIXED, machine(footprint_mb=lambda spec: round(1.2 * spec.footprint_mb))),
        Quarter(MIXED, machine(footprint_mb=lambda spec: round(1.12 * spec.footprint_mb))),
        Quarter(MIXED),
    ),
    Case("partial-offload-tinyllama", Quarter(MIXED, offloading(0.6)), Quarter(MIXED, offloading(1.0)), Quarter(MIXED)),
    Case(
        "slow-node",
        Quarter(MIXED, machine(decode_tps=lambda spec: 0.6 * spec.decode_tps)),
        Quarter(MIXED, machine(decode_tps=lambda spec: 0.75 * spec.decode_tps)),
        Quarter(MIXED),
    ),
    Case("backend-lost", replace(CALM, wedged_at_s=300.0), CALM),
    Case(
        "timestamp-repeats",
        Quarter(list(every(20.0, "It is 2026-11-23 10:{n:02}:07. Write 20 words about birds"))),
        Quarter(list(every(20.0, "It is Monday. Write 20 words about bird {n}"))),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
@pytest.mark.usefixtures("seeded")
def test_it_fires_on_bad_traffic_clears_on_good_and_is_quiet_on_what_is_within_its_limit(case: Case):
    start = time.time() // 60 * 60 - 10_000.0
    case.fine.record(start)
    watch.look(start + WINDOW_S)
    assert not Suggestion.objects.filter(rule=case.rule).exists()
    case.bad.record(start + 2000.0)
    watch.look(start + 2000.0 + WINDOW_S)
    suggestion = Suggestion.objects.get(rule=case.rule)
    assert (suggestion.state, suggestion.change) == ("open", {}), suggestion.body
    case.healed.record(start + 4000.0)
    watch.look(start + 4000.0 + WINDOW_S)
    suggestion.refresh_from_db()
    assert (suggestion.state, suggestion.actor) == ("dismissed", "narrowgauge")
    assert case.rule not in watch.firing()
