"""Rules: what is wrong with the last quarter of an hour, in a sentence, with the figures that say so.

Rule: each rule reads `Evidence` and gives `Reading`s (higher is worse). A reading fires above its limit when it has
enough samples, and clears below a lower one, so that nothing flickers; without traffic everything clears. The first
three and their numbers are strategy.md's. Must not know: where evidence comes from, what becomes of a finding.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from optimizer.core.thresholds import Thresholds

WINDOW_S = 900.0  # what a rule looks at; many_switches counts within it
HIGH, MEDIUM, LOW = "high", "medium", "low"
GENERATED = ("miss", "off")  # cache outcomes that took GPU time


@dataclass(frozen=True, slots=True)
class Seen:
    """One ended request. Seconds. `text` is its prompt, "" when prompts are not kept."""

    agent: str
    model: str
    tier: str  # of the model that answered
    status: str
    cache: str
    queue_s: float
    total_s: float
    work_s: float  # prefill and decode
    asked_auto: bool = False  # the choice of model was ours
    text: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as declared and as measured; None where nothing was measured."""

    name: str
    target_s: float
    declared_mb: float
    declared_decode_tps: float
    footprint_mb: float | None = None
    vram_mb: float | None = None
    decode_tps: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the rules look at; all of the last `WINDOW_S` seconds."""

    requests: Sequence[Seen] = ()
    models: Sequence[ModelFacts] = ()
    agent_tiers: Mapping[str, str] = field(default_factory=dict)
    waiting: Sequence[float] = ()  # mean number of waiting requests, one value a minute, oldest first
    switches: int = 0
    backend_losses: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """How bad one thing is: it fires above `fires`, and clears at `clears` or below."""

    rule: str  # a slug, one per subject
    severity: str
    level: float
    fires: float
    clears: float
    samples: int
    least: int  # samples below which nothing is said
    title: str
    body: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    fired: tuple[Reading, ...]  # new
    held: tuple[Reading, ...]  # fired before and has not cleared
    cleared: tuple[str, ...]  # rules


def judge(evidence: Evidence, thresholds: Thresholds, firing: Collection[str]) -> Judged:
    """What fires, holds and clears now; `firing` are the rules that fired earlier and have not cleared since."""
    readings: dict[str, Reading] = {}
    for rule in RULES:
        for reading in rule(evidence, thresholds):
            worst = readings.get(reading.rule)
            if worst is None or reading.level > worst.level:
                readings[reading.rule] = reading
    fired, held = [], []
    for name, reading in readings.items():
        if name in firing:
            if reading.level > reading.clears or reading.samples < reading.least:
                held.append(reading)
        elif reading.level > reading.fires and reading.samples >= reading.least:
            fired.append(reading)
    still = {reading.rule for reading in held}
    return Judged(tuple(fired), tuple(held), tuple(sorted(set(firing) - still)))


def slug(*parts: str) -> str:
    """A rule's name with its subject, as a slug of at most 60 characters."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:60]


# --- the strategy's three --------------------------------------------------------------------------


def slow_response(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """Average response time of a model above `slow_response_s` (5.0 s): high."""
    limit = thresholds.slow_response_s
    times: defaultdict[str, list[float]] = defaultdict(list)
    for seen in evidence.requests:
        if seen.status == "replied":
            times[seen.model].append(seen.total_s)
    targets = {model.name: model.target_s for model in evidence.models}
    for model, values in times.items():
        mean = _mean(values)
        target = f" Its tier's target is {targets[model]:g} s." if model in targets else ""
        yield Reading(
            slug("slow-response", model), HIGH, mean, limit, 0.8 * limit, len(values), 20,
            f"Slow response time for {model}: {mean:.1f} s on average",
            f"{len(values)} answers took {mean:.1f} s on average, the limit is {limit:g} s.{target} "
            "Consider prompt optimization or a model downgrade for its agents.",
            {"mean_s": round(mean, 3), "answers": len(values), "model": model},
        )  # fmt: skip


def low_hit_rate(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """Cache hit rate below `low_hit_rate` (20 %): medium."""
    outcomes = Counter(seen.cache for seen in evidence.requests if seen.status == "replied")
    hits = outcomes["exact"] + outcomes["semantic"]
    asked = hits + outcomes["miss"]
    if asked and thresholds.cache_enabled:
        rate, limit = hits / asked, thresholds.low_hit_rate
        yield Reading(
            "low-hit-rate", MEDIUM, -rate, -limit, -min(1.0, 1.25 * limit), asked, 50,
            f"Low cache hit rate: {rate:.0%}",
            f"{hits} of {asked} questions were answered from the cache, {limit:.0%} are expected. "
            "Increase cache size or TTL, or put agents that ask alike into one cache group.",
            {"hit_rate": round(rate, 4), "hits": hits, "asked": asked},
        )  # fmt: skip


def many_switches(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """More than `many_switches` (50) model switches: medium."""
    count, limit = evidence.switches, thresholds.many_switches
    if count:
        yield Reading(
            "many-switches", MEDIUM, count, limit, 0.8 * limit, count, 1,
            f"Frequent model switching: {count} in a quarter of an hour",
            f"{count} switches, more than {limit}. Batch requests by model type: a higher `stay` keeps models longer.",
            {"switches": count, "stay": thresholds.stay},
        )  # fmt: skip


# --- queues and agents -------------------------------------------------------------------------------

GROWN_BY = 10.0  # requests more than at the start of the window
GROWN_TIMES = 2.0


def queue_growing(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """The queue's last third of the window is 10 requests and twice above its first: more comes than is served."""
    minutes = list(evidence.waiting)
    third = len(minutes) // 3
    if third:
        first, last = _mean(minutes[:third]), _mean(minutes[-third:])
        grown = last - first if last >= GROWN_TIMES * first else 0.0
        yield Reading(
            "queue-growing", HIGH, grown, GROWN_BY, 0.0, len(minutes), 9,
            f"The queue grows: from {first:.0f} to {last:.0f} waiting",
            "More is asked than the machine can answer. Look for an agent that asks much more than the others, move "
            "agents to a smaller tier, or let them ask less often.",
            {"first": round(first, 1), "last": round(last, 1)},
        )  # fmt: skip


STARVES_TIMES = 5.0  # waits this many times as long as others of its model, and longer than its target


def agent_starving(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """An agent waits five times as long as the others of its model, and longer than its tier's target."""
    waits: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seen in evidence.requests:
        if seen.model and seen.cache not in ("exact", "semantic") and seen.status != "rejected":
            waits[seen.model][seen.agent].append(seen.queue_s)
    targets = {model.name: model.target_s for model in evidence.models}
    for model, of_agent in waits.items():
        for agent, own in of_agent.items():
            others = [wait for other, some in of_agent.items() if other != agent for wait in some]
            if len(others) < 5 or model not in targets:
                continue
            mean, usual = _mean(own), median(others)
            times = mean / max(usual, targets[model] / STARVES_TIMES)
            yield Reading(
                slug("agent-starving", agent), HIGH, times, STARVES_TIMES, 0.6 * STARVES_TIMES, len(own), 3,
                f"{agent} waits {mean:.0f} s for {model}, others {usual:.0f} s",
                f"Its {len(own)} requests waited {mean:.0f} s on average, those of others for the same model "
                f"{usual:.0f} s (median). Raise its weight or priority, or look at who is served before it.",
                {"agent": agent, "model": model, "mean_wait_s": round(mean, 2), "others_s": round(usual, 2)},
            )  # fmt: skip


HOG_SHARE = 0.5
HOG_WAITING = 2.0  # others must be waiting for it to matter


def agent_hogging(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """One agent takes more than half of the GPU's work while at least two requests wait on average."""
    work: defaultdict[str, float] = defaultdict(float)
    runs: Counter[str] = Counter()
    for seen in evidence.requests:
        if seen.cache in GENERATED:
            work[seen.agent] += seen.work_s
            runs[seen.agent] += 1
    total = sum(work.values())
    if total > 0 and len(work) >= 3 and _mean(evidence.waiting) >= HOG_WAITING:
        agent = max(work, key=lambda name: work[name])
        share = work[agent] / total
        yield Reading(
            slug("agent-hogging", agent), MEDIUM, share, HOG_SHARE, 0.8 * HOG_SHARE, sum(runs.values()), 20,
            f"{agent} takes {share:.0%} of the GPU's work",
            f"{runs[agent]} of {sum(runs.values())} generations, {work[agent]:.0f} of {total:.0f} s, while others "
            "wait. Lower its weight, cache its repeats, or move it to a smaller tier.",
            {"agent": agent, "share": round(share, 3), "work_s": round(work[agent], 1)},
        )  # fmt: skip


MISMATCH_SHARE = 0.8


def tier_mismatch(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """What an agent asks is nearly always (80 %) answered by another tier than its own."""
    answered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for seen in evidence.requests:
        if seen.asked_auto and seen.status == "replied" and seen.agent in evidence.agent_tiers:
            answered[seen.agent][seen.tier] += 1
    for agent, tiers in answered.items():
        own, count = evidence.agent_tiers[agent], tiers.total()
        usual, times = max(tiers.items(), key=lambda item: (item[1], item[0]))
        share = times / count if usual != own else 0.0
        yield Reading(
            slug("tier-mismatch", agent), LOW, share, MISMATCH_SHARE, 0.6, count, 20,
            f"{agent} is of tier {own}, {share:.0%} of its requests are answered by {usual}",
            f"{times} of {count} requests went to {usual} by their complexity. Make {usual} its tier, or narrow its "
            "lowest and highest tier.",
            {"agent": agent, "tier": own, "usual": usual, "share": round(share, 3), "requests": count},
        )  # fmt: skip


# --- models and backend --------------------------------------------------------------------------------

DRIFT = 0.15


def footprint_drift(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """A model takes 15 % more or less memory than declared."""
    for model in evidence.models:
        if model.footprint_mb is not None:
            drift = model.footprint_mb / model.declared_mb - 1.0
            yield Reading(
                slug("footprint-drift", model.name), MEDIUM, abs(drift), DRIFT, 0.1, 1, 1,
                f"{model.name} takes {model.footprint_mb:.0f} MB, {model.declared_mb:.0f} MB were declared",
                f"{drift:+.0%}. The measured figure is used already; correct the declared one so that people plan "
                "with it, and check the model's context window.",
                {"model": model.name, "declared_mb": model.declared_mb, "measured_mb": round(model.footprint_mb, 1)},
            )  # fmt: skip


OFFLOADED = 0.05  # share of the model outside VRAM that still counts as none
SLOWER = 0.8  # of the declared speed


def partial_offload(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """A model is partly outside VRAM and decodes below 80 % of its declared speed."""
    for model in evidence.models:
        if model.footprint_mb and model.vram_mb is not None and model.decode_tps is not None:
            outside, speed = 1.0 - model.vram_mb / model.footprint_mb, model.decode_tps / model.declared_decode_tps
            hurts = outside > OFFLOADED
            yield Reading(
                slug("partial-offload", model.name), HIGH, 1.0 - speed if hurts else 0.0, 1.0 - SLOWER, 0.1, 1, 1,
                f"{model.name} runs {outside:.0%} outside VRAM, at {speed:.0%} of its speed",
                f"{model.footprint_mb - model.vram_mb:.0f} MB of it are in main memory; it decodes "
                f"{model.decode_tps:.0f} tokens/s instead of {model.declared_decode_tps:.0f}. Use a smaller "
                "quantisation or context window, or free VRAM that other programs take.",
                {"model": model.name, "outside": round(outside, 3), "decode_tps": round(model.decode_tps, 1)},
            )  # fmt: skip


SLOW_NODE = 0.7


def slow_node(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """Every measured model, whole in VRAM, decodes below 70 % of its declared speed: the machine is slow."""
    speeds = [
        model.decode_tps / model.declared_decode_tps
        for model in evidence.models
        if model.decode_tps is not None and not _offloaded(model)
    ]
    if speeds:
        best = max(speeds)
        yield Reading(
            "slow-node", MEDIUM, 1.0 - best, 1.0 - SLOW_NODE, 0.2, len(speeds), 2,
            f"The machine runs at {best:.0%} of the declared speed",
            "Every model is slower than declared. Look for other programs on the GPU, throttling or power limits; if "
            "this is its normal speed, correct the declared one.",
            {"speeds": [round(speed, 3) for speed in speeds]},
        )  # fmt: skip


def wedge(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """The backend died, or answered and generated nothing."""
    count = evidence.backend_losses
    if count:
        yield Reading(
            "backend-lost", HIGH, count, 0, 0, count, 1,
            f"The backend was lost {count} time{'s' if count > 1 else ''} in a quarter of an hour",
            "It died, or answered without generating. Waiting requests were kept. Look at the backend's own log and "
            "at the GPU driver.",
            {"losses": count},
        )  # fmt: skip


# --- prompts ----------------------------------------------------------------------------------------------

REPEATED = 0.2  # share of the misses that would have been hits

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[t ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?(?:\s?(?:z|utc|[+-]\d{2}:?\d{2}))?"
    rf"|\b\d{{1,2}}[./ ](?:\d{{1,2}}|{_MONTH})[./ ]\d{{4}}\b|\b{_MONTH} \d{{1,2}},? \d{{4}}\b"
    r"|\b\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:\s?[ap]m)?\b|\b1[0-9]{9}(?:[0-9]{3})?\b",
    re.IGNORECASE,
)


def without_times(text: str) -> str:
    """The text with dates, times of day and Unix timestamps blanked out."""
    return _TIMESTAMP.sub("#", text)


def timestamp_repeats(evidence: Evidence, thresholds: Thresholds) -> Iterator[Reading]:
    """A fifth of the misses differ from an earlier one of their agent by a timestamp alone."""
    misses = [seen for seen in evidence.requests if seen.cache == "miss" and seen.text]
    texts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for seen in misses:
        texts[seen.agent, without_times(seen.text)].add(seen.text)
    repeats: Counter[str] = Counter()
    for (agent, _), same in texts.items():
        if len(same) > 1:
            repeats[agent] += len(same) - 1
    if misses:
        share = repeats.total() / len(misses)
        worst = ", ".join(f"{agent} ({count})" for agent, count in repeats.most_common(3))
        yield Reading(
            "timestamp-repeats", MEDIUM, share, REPEATED, 0.5 * REPEATED, len(misses), 20,
            f"{share:.0%} of the cache's misses differ from an earlier question by a timestamp",
            f"{repeats.total()} of {len(misses)} misses would have been hits: {worst}. Let these agents put the "
            "time at the end of a separate message, round it, or leave it out.",
            {"share": round(share, 3), "repeats": repeats.total(), "agents": dict(repeats.most_common(10))},
        )  # fmt: skip


RULES: tuple[Callable[[Evidence, Thresholds], Iterable[Reading]], ...] = (
    slow_response,
    low_hit_rate,
    many_switches,
    queue_growing,
    agent_starving,
    agent_hogging,
    tier_mismatch,
    footprint_drift,
    partial_offload,
    slow_node,
    wedge,
    timestamp_repeats,
)


def _offloaded(model: ModelFacts) -> bool:
    whole = not model.footprint_mb or model.vram_mb is None
    return not whole and (model.vram_mb or 0.0) / (model.footprint_mb or 1.0) < 1.0 - OFFLOADED


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
