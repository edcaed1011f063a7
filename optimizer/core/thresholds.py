"""Thresholds: every number an admin may edit, as ONE typed, immutable object.

Rule: a field carries its default, unit, range, group, help and source; anything that reads a number
an admin could want to change reads it here. `changed` is the only way to a new value, and validates.
Must not know: where revisions are stored, or who edits them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optimizer.core.errors import ConfigurationError

STRATEGY = "strategy.md"
DESIGN = "DESIGN.md"
SCHEDULING = "research/scheduling.md"
QUALITY = "research/quality.md"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is known of one field; `choices` for words, `low`..`high` (inclusive) for numbers."""

    unit: str
    group: str
    help: str
    source: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def _number(default: Any, unit: str, low: float, high: float, group: str, help: str, source: str) -> Any:
    return field(default=default, metadata={"limits": Limits(unit, group, help, source, low, high)})


def _word(default: str, choices: tuple[str, ...], group: str, help: str, source: str) -> Any:
    limits = Limits("", group, help, source, choices=choices)
    return field(default=default, metadata={"limits": limits})


def _flag(default: bool, group: str, help: str, source: str) -> Any:
    return field(default=default, metadata={"limits": Limits("", group, help, source)})


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Defaults are the strategy's wherever it names a number."""

    # gpu
    gpu_memory_mb: int = _number(
        4096, "MB", 16, 1_048_576, "gpu", "Memory of the GPU (or the memory budget of the embedded engine).", STRATEGY
    )
    gpu_headroom: float = _number(
        0.9, "share", 0.1, 1.0, "gpu", "Share of the memory that models may take; the rest stays free.", STRATEGY
    )
    slots: int = _number(2, "slots", 1, 16, "gpu", "Requests that run at once on one node, over all models.", STRATEGY)

    # scheduler
    stay: float = _number(
        15.0,
        "swap times",
        0.0,
        200.0,
        "scheduler",
        "How many swap times a set of models stays before others may push it out while it still has work. "
        "15 caps swapping at about 1/16 of GPU time.",
        SCHEDULING,
    )
    urgent: float = _number(
        1.0,
        "times",
        0.0,
        100.0,
        "scheduler",
        "A waiting model that is this many times more overdue than anyone waiting for the loaded ones may come in "
        "without waiting for the gate. 0 turns it off: fairer to rare models, fewer answers in time.",
        "docs/scheduling.md (simulated: 4 answers more, but leaves agents without an answer)",
    )
    order: str = _word(
        "wfq",
        ("wfq", "shortest", "fifo"),
        "scheduler",
        "Order inside a model: weighted fair queueing over agents, shortest predicted first, or arrival.",
        SCHEDULING,
    )
    longest_waiting_every: int = _number(
        8,
        "starts",
        1,
        100,
        "scheduler",
        "Every n-th start of a model goes to the request that has waited longest, whatever its priority.",
        "docs/scheduling.md (simulated: 8 beats 3)",
    )

    # admission
    max_waiting: int = _number(
        4096, "requests", 1, 1_000_000, "admission", "Requests that may wait in all; beyond it: 503.", DESIGN
    )
    max_waiting_per_agent: int = _number(
        512, "requests", 1, 100_000, "admission", "Requests one agent may have waiting; beyond it: 429.", DESIGN
    )

    # selection
    cut_sonnet: float = _number(
        0.4, "complexity", 0.0, 1.0, "selection", "Complexity above which the sonnet tier answers.", STRATEGY
    )
    cut_opus: float = _number(
        0.8, "complexity", 0.0, 1.0, "selection", "Complexity above which the opus tier answers.", STRATEGY
    )
    weight_reasoning: float = _number(
        0.4, "weight", 0.0, 1.0, "selection", "Weight of reasoning depth in the complexity.", STRATEGY
    )
    weight_context: float = _number(
        0.2, "weight", 0.0, 1.0, "selection", "Weight of context size in the complexity.", STRATEGY
    )
    weight_output: float = _number(
        0.2, "weight", 0.0, 1.0, "selection", "Weight of expected output in the complexity.", STRATEGY
    )
    weight_expertise: float = _number(
        0.2, "weight", 0.0, 1.0, "selection", "Weight of domain expertise in the complexity.", STRATEGY
    )
    prior_weight: float = _number(
        4.0, "outcomes", 0.0, 100.0, "selection", "How many outcomes the prior of an agent's tier is worth.", QUALITY
    )
    max_swap_wait_s: float = _number(
        60.0,
        "s",
        0.0,
        3600.0,
        "selection",
        "Escalate to a stronger model only if its predicted extra wait (swap and queue) stays below this.",
        DESIGN,
    )

    # prompts
    compression: bool = _flag(True, "prompts", "Compress prompts within each tier's rules.", STRATEGY)
    budget_default_tokens: int = _number(
        500, "tokens", 16, 1_000_000, "prompts", "Prompt budget of the default tier.", STRATEGY
    )
    budget_sonnet_tokens: int = _number(
        1000, "tokens", 16, 1_000_000, "prompts", "Prompt budget of the sonnet tier.", STRATEGY
    )
    budget_opus_tokens: int = _number(
        2000, "tokens", 16, 1_000_000, "prompts", "Prompt budget of the opus tier.", STRATEGY
    )
    context_fill: float = _number(
        0.8, "share", 0.1, 1.0, "prompts", "Share of the window at which older messages are summarised.", STRATEGY
    )
    context_keep_messages: int = _number(
        10, "messages", 2, 1000, "prompts", "The older half is summarised only beyond this many messages.", STRATEGY
    )
    context_relevant: int = _number(
        5, "messages", 0, 100, "prompts", "Older messages kept because they bear on the question.", STRATEGY
    )
    context_recent: int = _number(3, "messages", 1, 100, "prompts", "Latest messages always kept.", STRATEGY)
    compression_ratio: float = _number(
        0.7, "share", 0.05, 1.0, "prompts", "Length of a summary relative to what it replaces, at most.", STRATEGY
    )
    summary_wait_s: float = _number(
        10.0,
        "s",
        0.0,
        600.0,
        "prompts",
        "How long the small tier may take to summarise a conversation's older half, when it is free anyway; "
        "0 = always summarise by extraction.",
        DESIGN,
    )
    summary_tokens: int = _number(
        256, "tokens", 16, 4096, "prompts", "Length of a summary by the small tier, at most.", DESIGN
    )

    # generation
    temperature: float = _number(0.7, "", 0.0, 2.0, "generation", "Base temperature.", STRATEGY)
    top_p: float = _number(0.9, "", 0.01, 1.0, "generation", "Base top_p.", STRATEGY)
    repeat_penalty: float = _number(1.1, "", 0.5, 2.0, "generation", "Base repeat penalty.", STRATEGY)
    max_tokens_scale: float = _number(
        1.0,
        "times",
        0.1,
        4.0,
        "generation",
        "Scales every model's default answer limit; the tuner's 'max_tokens x 0.8' moves this.",
        STRATEGY,
    )

    # cache
    cache_enabled: bool = _flag(True, "cache", "Answer repeats from the cache.", STRATEGY)
    cache_max_entries: int = _number(1000, "entries", 0, 1_000_000, "cache", "Entries kept (LRU beyond).", STRATEGY)
    cache_ttl_s: float = _number(3600.0, "s", 1.0, 2_592_000.0, "cache", "Age at which an entry expires.", STRATEGY)
    cache_similarity: float = _number(
        0.95,
        "cosine",
        0.0,
        1.0,
        "cache",
        "Similarity a semantic hit needs under the light guard; the strict guard decides by content and uses "
        "its own floor below.",
        STRATEGY,
    )
    cache_similarity_strict: float = _number(
        0.7, "cosine", 0.0, 1.0, "cache", "Similarity a semantic hit needs under the strict guard.", QUALITY
    )

    # batching
    batch_window_ms: float = _number(
        100.0, "ms", 0.0, 10_000.0, "batching", "How long a request waits for others of its model.", STRATEGY
    )
    batch_max: int = _number(5, "requests", 1, 32, "batching", "Requests started or combined together.", STRATEGY)
    coalesce: bool = _flag(True, "batching", "Identical running requests share one generation.", DESIGN)

    # monitoring
    slow_response_s: float = _number(
        5.0, "s", 0.1, 3600.0, "monitoring", "Average response time above which a model counts as slow.", STRATEGY
    )
    low_hit_rate: float = _number(
        0.2, "share", 0.0, 1.0, "monitoring", "Cache hit rate below which a suggestion is made.", STRATEGY
    )
    many_switches: int = _number(
        50,
        "switches",
        1,
        100_000,
        "monitoring",
        "Model switches per window above which a suggestion is made.",
        STRATEGY,
    )
    probe_interval_s: float = _number(
        30.0, "s", 0.1, 3600.0, "monitoring", "How often an idle backend is probed with one token.", DESIGN
    )
    stall_timeout_s: float = _number(
        120.0, "s", 0.5, 7200.0, "monitoring", "A run without a token for this long is checked for a wedge.", DESIGN
    )
    load_timeout_s: float = _number(
        300.0, "s", 1.0, 7200.0, "monitoring", "A load that takes longer has failed.", "Ollama OLLAMA_LOAD_TIMEOUT"
    )
    record_retention_days: int = _number(
        7, "days", 1, 3650, "monitoring", "Request records are deleted after this.", DESIGN
    )
    store_prompts: bool = _flag(True, "monitoring", "Keep prompt and answer text in request records.", DESIGN)
    prompt_retention_hours: float = _number(
        168.0,
        "h",
        1.0,
        87_600.0,
        "monitoring",
        "Prompt and answer text is deleted from request records after this, which may be sooner than the record.",
        DESIGN,
    )

    # tasks
    durable_in_flight: int = _number(
        32,
        "tasks",
        1,
        512,
        "tasks",
        "Durable tasks of one priority class that the engine holds at once, waiting or running; the others wait in "
        "the database.",
        "docs/tasks.md",
    )
    durable_waiting_per_agent: int = _number(
        50_000,
        "tasks",
        1,
        10_000_000,
        "tasks",
        "Unfinished durable tasks of one agent; beyond it: 429.",
        "docs/tasks.md",
    )
    durable_attempts: int = _number(
        5, "attempts", 1, 100, "tasks", "How often a durable task is begun before it counts as failed.", "docs/tasks.md"
    )
    batch_max_lines: int = _number(
        10_000, "lines", 1, 1_000_000, "tasks", "Tasks in one batch; beyond it: 400.", "docs/tasks.md"
    )
    task_retention_days: int = _number(
        30, "days", 1, 3650, "tasks", "Ended durable tasks and batches are deleted after this.", "docs/tasks.md"
    )

    # tuning
    tuning_mode: str = _word(
        "suggest", ("off", "suggest", "auto"), "tuning", "What the adaptive optimiser may do.", DESIGN
    )
    tuning_cycle_s: float = _number(300.0, "s", 5.0, 86_400.0, "tuning", "Time between tuning cycles.", STRATEGY)

    @property
    def usable_mb(self) -> float:
        """VRAM that models may take: memory x headroom, MB."""
        return self.gpu_memory_mb * self.gpu_headroom

    @property
    def grace_s(self) -> float:
        """The batch window in seconds: a request younger than this does not cause a swap (rule A)."""
        return self.batch_window_ms / 1000.0

    def budget_tokens(self, tier: str) -> int:
        """Prompt budget of a tier, tokens."""
        budgets = {
            "default": self.budget_default_tokens,
            "sonnet": self.budget_sonnet_tokens,
            "opus": self.budget_opus_tokens,
        }
        return budgets[tier]


def limits() -> dict[str, Limits]:
    """Field name -> its limits, in the order of declaration."""
    return {f.name: f.metadata["limits"] for f in dataclasses.fields(Thresholds)}


def default(name: str) -> Any:
    """The default of a field. Raises KeyError for an unknown one."""
    for f in dataclasses.fields(Thresholds):
        if f.name == name:
            return f.default
    raise KeyError(name)


class ThresholdError(ConfigurationError):
    """One or more values were refused: `problems` maps field name to a sentence."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = dict(problems)


def changed(current: Thresholds, changes: Mapping[str, Any]) -> Thresholds:
    """`current` with `changes`, validated and typed.

    Strings are parsed (forms and `--set name=value` send them). Raises ThresholdError naming every
    bad field at once; nothing is changed then.
    """
    known = limits()
    problems: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, raw in changes.items():
        if name not in known:
            problems[name] = "no such threshold"
            continue
        try:
            values[name] = _parsed(raw, type(default(name)), known[name])
        except ValueError as error:
            problems[name] = str(error)
    if not problems:
        result = dataclasses.replace(current, **values)
        if result.cut_sonnet > result.cut_opus:
            problems["cut_sonnet"] = "must not be above cut_opus"
        if not any((result.weight_reasoning, result.weight_context, result.weight_output, result.weight_expertise)):
            problems["weight_reasoning"] = "at least one complexity weight must be above 0"
    if problems:
        raise ThresholdError(problems)
    return result


_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _parsed(raw: Any, kind: type, limit: Limits) -> Any:
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("must be true or false")
        return word in _TRUE
    if kind is str:
        if str(raw) not in limit.choices:
            raise ValueError(f"must be one of {', '.join(limit.choices)}")
        return str(raw)
    if isinstance(raw, bool):
        raise ValueError("must be a number")
    try:
        number = float(raw)
    except (TypeError, ValueError):
        raise ValueError("must be a number") from None
    if number != number or limit.low is None or limit.high is None or not limit.low <= number <= limit.high:
        raise ValueError(f"must be from {limit.low:g} to {limit.high:g}{' ' + limit.unit if limit.unit else ''}")
    if kind is int:
        if number != int(number):
            raise ValueError("must be a whole number")
        return int(number)
    return number


def as_dict(thresholds: Thresholds) -> dict[str, Any]:
    """Plain values by name, for storage and the API."""
    return dataclasses.asdict(thresholds)
