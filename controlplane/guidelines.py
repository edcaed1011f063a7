"""Does a setting keep to the strategy's guidelines? Sentences for people; nothing is forbidden here.

Rule: a guideline warns, a validation refuses. Functions take rows (saved or not) and return sentences, [] for none.
Must not know: where the sentences are shown.
"""

from collections.abc import Iterable

from controlplane.models import Agent, LanguageModel, Tier
from optimizer.core.generation import TASK_SAMPLING, guideline_remark
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import DEFAULT, Residency

PROMPT_GUIDELINE_TOKENS = 500  # strategy.md, "TinyLlama: keep prompts under 500 tokens"
HIGH_EXPERTISE = 0.8  # an agent this expert belongs where complex reasoning is done (strategy.md: cut of the top tier)


def of_model(model: LanguageModel, thresholds: Thresholds) -> list[str]:
    """The temperature the base settings give this model, its size, and the always-resident small model."""
    spec = model.spec()
    warnings = []
    temperature = round(thresholds.temperature * spec.temperature_factor, 3)
    if remark := guideline_remark(temperature, spec):
        warnings.append(f"Base {remark}: {thresholds.temperature:g} x {spec.temperature_factor:g}.")
    if spec.footprint_mb > thresholds.usable_mb:
        warnings.append(
            f"{spec.name} takes {spec.footprint_mb} MB, more than the usable {thresholds.usable_mb:.0f} MB: "
            "part of it would run on the CPU, or not at all."
        )
    if spec.tier == DEFAULT and model.is_tier_default and spec.residency is not Residency.ALWAYS:
        warnings.append(f"The strategy keeps the small, frequently used model always loaded; {spec.name} is not.")
    if spec.context_window < thresholds.budget_tokens(spec.tier):
        warnings.append(
            f"The window of {spec.name} ({spec.context_window} tokens) is smaller than its tier's prompt budget "
            f"({thresholds.budget_tokens(spec.tier)})."
        )
    return warnings


def of_residents(models: Iterable[LanguageModel], thresholds: Thresholds) -> list[str]:
    """Models that should always be loaded must fit together."""
    always = [model.spec() for model in models if model.residency == Residency.ALWAYS and model.enabled]
    total = sum(spec.footprint_mb for spec in always)
    if total <= thresholds.usable_mb:
        return []
    names = ", ".join(spec.name for spec in always)
    return [f"Always loaded are {names}: {total} MB, more than the usable {thresholds.usable_mb:.0f} MB."]


def of_agent(agent: Agent, tiers: Iterable[Tier]) -> list[str]:
    """Use case and expertise against the tier; options that pull in different directions."""
    warnings = []
    home = next((tier for tier in tiers if agent.use_case in tier.use_cases), None)
    if home is not None and home.slug != agent.tier_id:
        warnings.append(f"The strategy has '{agent.use_case}' in the {home.name} tier.")
    if agent.tier_id == DEFAULT and agent.expertise_level >= HIGH_EXPERTISE:
        warnings.append(
            f"Expertise {agent.expertise_level:g} on the {agent.tier_id} tier: it is meant for classification, "
            "extraction and simple generation."
        )
    if agent.combine and agent.priority == Agent.Priority.INTERACTIVE:
        warnings.append("Combined prompts make an interactive agent wait for others.")
    if agent.cache_group and agent.cache == Agent.CacheMode.OFF:
        warnings.append("A cache group has no effect while the answer cache is off.")
    return warnings


def of_thresholds(before: Thresholds, after: Thresholds, models: Iterable[LanguageModel]) -> list[str]:
    """What a change of thresholds newly breaks; what was so before is not repeated."""
    rows = [model for model in models if model.enabled]
    warnings = _threshold_warnings(after, rows)
    known = _threshold_warnings(before, rows)
    return [warning for warning in warnings if warning not in known]


def _threshold_warnings(thresholds: Thresholds, models: list[LanguageModel]) -> list[str]:
    warnings = [warning for model in models for warning in of_model(model, thresholds)]
    warnings += of_residents(models, thresholds)
    if thresholds.budget_default_tokens > PROMPT_GUIDELINE_TOKENS:
        warnings.append(
            f"A prompt budget of {thresholds.budget_default_tokens} tokens on the default tier: the guideline keeps "
            f"prompts under {PROMPT_GUIDELINE_TOKENS}."
        )
    if not thresholds.compression:
        warnings.append("The strategy compresses prompts for all agents; compression is off.")
    if not thresholds.cache_enabled:
        warnings.append("The strategy caches responses; the cache is off.")
    budgets = (thresholds.budget_default_tokens, thresholds.budget_sonnet_tokens, thresholds.budget_opus_tokens)
    if list(budgets) != sorted(budgets):
        warnings.append("A stronger tier has a smaller prompt budget than a weaker one.")
    return warnings


def temperatures(model: LanguageModel, thresholds: Thresholds) -> dict[str, str]:
    """Temperature by task type on a model, marked where it leaves the guideline's range."""
    spec = model.spec()
    bases = {"other tasks": thresholds.temperature} | {name: s.temperature for name, s in TASK_SAMPLING.items()}
    found = {name: round(base * spec.temperature_factor, 3) for name, base in bases.items()}
    outside = {name for name, value in found.items() if guideline_remark(value, spec)}
    return {name: f"{value:g}{' (outside)' if name in outside else ''}" for name, value in found.items()}
