"""Generation parameters: the strategy's table by task type, adjusted by model; the client's own values win.

Rule: a value the client sent is never changed, only checked against the model's guideline and remarked on.
Must not know: which backend turns these option names (Ollama's) into its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimizer.core.request import Decision
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import ModelSpec


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    top_p: float


# strategy.md, "Response Optimization": task-specific adjustments. Other task types use the base values.
TASK_SAMPLING: Mapping[str, Sampling] = {
    "code_generation": Sampling(0.3, 0.95),
    "creative_writing": Sampling(0.9, 0.95),
    "analysis": Sampling(0.5, 0.9),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """`options` in Ollama's names, ready to send; `decision` says where each value comes from."""

    options: Mapping[str, Any]
    decision: Decision

    @property
    def max_tokens(self) -> int:
        return int(self.options["num_predict"])


def parameters(
    task_type: str, spec: ModelSpec, thresholds: Thresholds, explicit: Mapping[str, Any], room_tokens: int
) -> Parameters:
    """Options for one generation.

    `explicit` are the client's options (they win); `room_tokens` is what the window leaves for the answer,
    which caps our own default length but not the client's wish (the backend stops at the window anyway).
    """
    sampling = TASK_SAMPLING.get(task_type, Sampling(thresholds.temperature, thresholds.top_p))
    default_length = max(1, round(spec.max_tokens * thresholds.max_tokens_scale))
    ours = {
        "temperature": round(sampling.temperature * spec.temperature_factor, 3),
        "top_p": sampling.top_p,
        "repeat_penalty": thresholds.repeat_penalty,
        "num_predict": max(1, min(default_length, room_tokens)),
    }
    given = {name: value for name, value in explicit.items() if value is not None}
    if _unbounded(given.get("num_predict")):
        # Ollama's -1 (no limit) and -2 (fill the window) would hold a slot for as long as the model rambles.
        given["num_predict"] = max(1, room_tokens)
    options = {**ours, **given}
    remark = guideline_remark(options["temperature"], spec)
    named = f"for {task_type}" if task_type in TASK_SAMPLING else "base values"
    own = ", ".join(sorted(set(given) & set(ours)))
    reason = (
        f"{named} on {spec.name}" + (f"; {own} as the client asked" if own else "") + (f"; {remark}" if remark else "")
    )
    choice = (
        f"temperature {options['temperature']:g}, top_p {options['top_p']:g}, at most {options['num_predict']} tokens"
    )
    return Parameters(options, Decision("generation", choice, reason, {k: options[k] for k in ours}))


def guideline_remark(temperature: Any, spec: ModelSpec) -> str:
    """A sentence when a temperature is outside the strategy's range for the model; else ""."""
    low, high = spec.temperature_range
    if isinstance(temperature, int | float) and not low <= temperature <= high:
        return f"temperature {temperature:g} is outside the guideline {low:g} to {high:g} for {spec.name}"
    return ""


def _unbounded(num_predict: Any) -> bool:
    return isinstance(num_predict, int | float) and num_predict < 0
