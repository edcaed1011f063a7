"""Each rule on recorded traffic: it fires, it stays quiet, it clears; and people's decisions are respected."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from controlplane import series, stores, suggestions, watch
from controlplane.models import LanguageModel, Suggestion
from optimizer.core.metering import Distribution, Point
from optimizer.core.rules import WINDOW_S
from optimizer.ports import Record
from tests.controlplane.test_stores import NOW, RECORD

LATER = NOW + WINDOW_S + 60.0
MODELS = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")
QUICK = {"total_s": 1.0, "queue_s": 0.1, "cache": "exact", "wanted": "tinyllama", "prompt_original": ""}


def requests(count: int, at: float, change: Callable[[int], dict[str, Any]]) -> list[Record]:
    """Recorded requests within ten minutes before `at`; harmless but for what `change` says of the n-th."""
    return [
        replace(RECORD, id=f"{at}-{n}", arrived_at=at - 1.0 - n % 600, **{**QUICK, "agent": f"a{n % 7}", **change(n)})
        for n in range(count)
    ]


def save(records: Iterable[Record]) -> None:
    buffer = stores.RecordBuffer()
    for record in records:
        buffer.save(record)
    buffer.flush()


def counted(name: str, at: float, values: Iterable[float], **labels: str) -> None:
    """One value a minute, the last in the minute of `at`."""
    values = list(values)
    for age, value in enumerate(reversed(values)):
        seen = Distribution()
        seen.add(value, True)
        series.save([Point(name, tuple(labels.items()), (at - 60.0 * age) // 60 * 60, seen)])


def measured(**figures: float | None) -> None:
    LanguageModel.objects.filter(backend="ollama", name="tinyllama").update(**figures)


def traffic(count: int, **fields: Any) -> Callable[[float], None]:
    """Saves requests; a field may be a function of n."""
    return lambda at: save(requests(count, at, lambda n: {k: v(n) if callable(v) else v for k, v in fields.items()}))


def waiting(*minutes: float) -> Callable[[float], None]:
    return lambda at: counted("requests_waiting", at, minutes, model="tinyllama")


def both(*doings: Callable[[float], None]) -> Callable[[float], None]:
    def do(at: float) -> None:
        for doing in doings:
            doing(at)

    return do


@dataclass(frozen=True)
class Case:
    """`bad` makes the rule fire; `fine` is just within its limit; `healed` clears it."""

    rule: str
    severity: str
    bad: Callable[[float], None]
    fine: Callable[[float], None]
    healed: Callable[[float], None]


def tiny(mb: float | None = None, vram: float | None = None, tps: float | None = None) -> Callable[[float], None]:
    return lambda at: measured(measured_footprint_mb=mb, measured_vram_mb=vram, measured_decode_tps=tps)


def both_models(tps_share: float) -> Callable[[float], None]:
    def do(at: float) -> None:
        for row in LanguageModel.objects.filter(backend="ollama"):
            row.measured_decode_tps = row.decode_tps * tps_share
            row.save()

    return do


def hog(share_of_n: Callable[[int], float], queue: tuple[float, ...]) -> Callable[[float], None]:
    work = traffic(
        40, agent=lambda n: "greedy" if n % 2 else f"a{n % 7}", cache="off", prefill_s=0.0, decode_s=share_of_n
    )
    return both(work, waiting(*queue))


CASES = (
    # The strategy's numbers: above 5.0 s, below 20 %, above 50.
    Case(
        "slow-response-tinyllama", "high",
        traffic(20, total_s=5.05), traffic(20, total_s=5.0), traffic(20, total_s=4.0),
    ),
    Case(
        "low-hit-rate", "medium",
        traffic(100, cache=lambda n: "exact" if n < 19 else "miss"),
        traffic(100, cache=lambda n: "exact" if n < 20 else "miss"),
        traffic(100, cache=lambda n: "semantic" if n < 25 else "miss"),
    ),
    Case(
        "many-switches", "medium",
        lambda at: counted("model_switches_total", at, [17, 17, 17]),
        lambda at: counted("model_switches_total", at, [17, 17, 16]),
        lambda at: counted("model_switches_total", at, [20, 20]),
    ),
    Case("queue-growing", "high", waiting(*range(0, 24, 2)), waiting(*[20.0] * 12), waiting(*range(24, 0, -2))),
    Case(
        "agent-starving-poor", "high",
        traffic(40, agent=lambda n: "poor" if n % 8 == 0 else f"a{n % 7}", cache="off",
                queue_s=lambda n: 60.0 if n % 8 == 0 else 1.0),
        traffic(40, agent=lambda n: "poor" if n % 8 == 0 else f"a{n % 7}", cache="off", queue_s=4.0),
        traffic(40, agent=lambda n: "poor" if n % 8 == 0 else f"a{n % 7}", cache="off", queue_s=1.0),
    ),
    Case(
        "agent-hogging-greedy", "medium",
        hog(lambda n: 20.0 if n % 2 else 2.0, (3.0,) * 5),
        hog(lambda n: 20.0 if n % 2 else 2.0, (0.0,) * 5),  # nobody else waits
        hog(lambda n: 2.0 if n % 2 else 20.0, (3.0,) * 5),
    ),
    Case(
        "tier-mismatch-python-developer", "low",
        traffic(30, agent="python-developer", wanted="auto", tier="opus"),
        traffic(30, agent="python-developer", wanted="opus", tier="opus"),  # the caller chose
        traffic(30, agent="python-developer", wanted="auto", tier="sonnet"),
    ),
    Case("footprint-drift-tinyllama", "medium", tiny(mb=1000), tiny(mb=900), tiny(mb=870)),
    Case("partial-offload-tinyllama", "high", tiny(800, 600, 60), tiny(800, 600, 119), tiny(800, 800, 119)),
    Case("slow-node", "medium", both_models(0.6), both_models(0.9), both_models(0.95)),
    Case(
        "backend-lost", "high",
        lambda at: counted("backend_losses_total", at, [1]),
        lambda at: None,
        lambda at: None,
    ),
    Case(
        "timestamp-repeats", "medium",
        traffic(60, cache="miss", agent="clock", prompt_original=lambda n: f"It is 2026-11-23 10:{n:02}:07. All well?"),
        traffic(60, cache="miss", agent="clock", prompt_original=lambda n: f"It is {n}. All well?"),
        traffic(60, cache="miss", agent="clock", prompt_original=lambda n: f"Is server {n} well at 10:00?"),
    ),
)  # fmt: skip
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)


def found(rule: str) -> list[Suggestion]:
    return list(Suggestion.objects.filter(rule=rule).order_by("pk"))


@each
@pytest.mark.usefixtures("seeded")
def test_it_fires_once_and_clears(case: Case):
    case.bad(NOW)
    watch.look(NOW)
    watch.look(NOW)
    [suggestion] = found(case.rule)
    assert (suggestion.severity, suggestion.state, suggestion.change) == (case.severity, "open", {})
    case.healed(LATER)
    watch.look(LATER)
    [suggestion] = found(case.rule)
    assert (suggestion.state, suggestion.actor) == ("dismissed", "narrowgauge")
    assert case.rule not in watch.firing()


@each
@pytest.mark.usefixtures("seeded")
def test_it_is_quiet_within_its_limit(case: Case):
    case.fine(NOW)
    watch.look(NOW)
    assert found(case.rule) == []


@pytest.mark.usefixtures("seeded")
def test_between_the_two_limits_nothing_flickers():
    traffic(20, total_s=5.5)(NOW)
    watch.look(NOW)
    traffic(20, total_s=4.5)(LATER)  # below the limit, above the one that clears
    assert watch.look(LATER).held and found("slow-response-tinyllama")[0].state == "open"
    traffic(5, total_s=1.0)(LATER + WINDOW_S)  # too few to say that it is over
    assert watch.look(LATER + WINDOW_S).held
    assert watch.look(LATER + 3 * WINDOW_S).cleared == ("slow-response-tinyllama",)  # no traffic at all


@pytest.mark.usefixtures("seeded")
def test_too_few_samples_say_nothing():
    traffic(19, total_s=50.0)(NOW)
    assert not watch.look(NOW).fired


@pytest.mark.usefixtures("seeded")
def test_what_a_person_dismissed_stays_so_until_it_clears_and_comes_back():
    rule = "slow-response-tinyllama"
    traffic(20, total_s=9.0)(NOW)
    watch.look(NOW)
    suggestions.dismiss(found(rule)[0], "anna")
    watch.look(NOW)
    assert [s.actor for s in found(rule)] == ["anna"]
    assert watch.look(NOW + 5 * WINDOW_S).cleared == (rule,)
    traffic(20, total_s=9.0)(NOW + 6 * WINDOW_S)
    watch.look(NOW + 6 * WINDOW_S)
    assert [(s.actor, s.state) for s in found(rule)] == [("anna", "dismissed"), ("", "open")]
