"""What a first start puts into an empty database: tiers, models, agents, roles. Nothing a user would have to delete.

Rule: each step is done once in the life of a database (`SeedStep`). A later start neither overwrites what an admin
edited nor brings back what they deleted. New content in a later version is a new step.
"""

from collections.abc import Callable

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.utils.text import slugify

from controlplane.agents_seed import USE_CASES
from controlplane.models import Agent, LanguageModel, SeedStep, Tier
from optimizer.backends.llamacpp_models import EMBEDDED_MODELS, EMBEDDED_TIERS
from optimizer.core import tiers as core

# strategy.md: "Three-Tier Model Architecture" and "Model Usage Guidelines".
_TIER_TEXTS = {
    core.OPUS: (
        "Opus",
        "Complex reasoning",
        "Reserve for complex reasoning and architecture\n"
        "Provide detailed context and requirements\n"
        "Allow longer generation for thorough analysis\n"
        "Temperature: 0.7-0.9 for creative problem solving",
    ),
    core.SONNET: (
        "Sonnet",
        "Balanced performance",
        "Optimal for code generation and technical tasks\n"
        "Balance between quality and performance\n"
        "Use structured prompts with clear examples\n"
        "Temperature: 0.5-0.7 for balanced creativity",
    ),
    core.DEFAULT: (
        "Default",
        "High efficiency",
        "Keep prompts under 500 tokens\n"
        "Use for classification, extraction, simple generation\n"
        "Ideal for high-frequency, low-complexity tasks\n"
        "Temperature: 0.3-0.5 for consistency",
    ),
}


def seed() -> list[str]:
    """Do the steps not done before, each in its own transaction; returns their names. Safe to call on every start."""
    done = set(SeedStep.objects.values_list("name", flat=True))
    fresh = [(name, step) for name, step in _STEPS if name not in done]
    for name, step in fresh:
        with transaction.atomic():
            step()
            SeedStep.objects.create(name=name)
    return [name for name, _ in fresh]


def use_cases_of(tier: str) -> list[str]:
    """The strategy's use cases of a tier, in its order."""
    return [case.name for case in USE_CASES if case.tier == tier]


def _tiers() -> None:
    for tier in core.STRATEGY_TIERS:
        name, purpose, guidelines = _TIER_TEXTS[tier.slug]
        Tier.objects.create(
            slug=tier.slug,
            name=name,
            rank=core.rank(tier.slug),
            purpose=purpose,
            use_cases=use_cases_of(tier.slug),
            guidelines=guidelines,
            compression=tier.compression.value,
            target_s=tier.target_s,
        )


def _models(backend: str, models: tuple[core.ModelSpec, ...], tiers: tuple[core.Tier, ...]) -> None:
    serving = {tier.model for tier in tiers}
    rows = [LanguageModel.from_spec(backend, spec, is_tier_default=spec.name in serving) for spec in models]
    for row in rows:
        row.use_cases = "\n".join(use_cases_of(row.tier_id))
        row.guidelines = _TIER_TEXTS[row.tier_id][2]
    LanguageModel.objects.bulk_create(rows)


def _strategy_models() -> None:
    _models(LanguageModel.Backend.OLLAMA, core.STRATEGY_MODELS, core.STRATEGY_TIERS)


def _embedded_models() -> None:
    _models(LanguageModel.Backend.LLAMACPP, EMBEDDED_MODELS, EMBEDDED_TIERS)


def _agents() -> None:
    Agent.objects.bulk_create(
        Agent(
            slug=slugify(agent.name),
            name=agent.name,
            description=agent.description,
            tier_id=case.tier,
            use_case=case.name,
            task_type=agent.task_type,
            expertise_level=agent.expertise_level,
        )
        for case in USE_CASES
        for agent in case.agents
    )


# What the operator may do besides looking at everything. An admin may do everything, users and roles included.
_OPERATOR = (
    "change_agent",
    "add_agentkey",
    "change_agentkey",
    "change_node",
    "change_suggestion",
    "delete_cachedanswer",
    "read_prompts",
    "change_durabletask",
)


def _roles() -> None:
    ours = Permission.objects.filter(content_type__app_label="controlplane")
    accounts = Permission.objects.filter(content_type__app_label="auth", content_type__model__in=("user", "group"))
    viewing = ours.filter(codename__startswith="view_")
    for name, permissions in (
        ("viewer", viewing),
        ("operator", viewing | ours.filter(codename__in=_OPERATOR)),
        ("admin", ours | accounts),
    ):
        group, made = Group.objects.get_or_create(name=name)
        if made:
            group.permissions.set(permissions)


def _task_roles() -> None:
    """What came with durable tasks, for roles that an earlier version made."""
    of_tasks = Permission.objects.filter(
        content_type__app_label="controlplane", content_type__model__in=("durabletask", "batch", "webhookdelivery")
    )
    webhook = Permission.objects.filter(content_type__app_label="controlplane", codename="set_webhook")
    viewing = of_tasks.filter(codename__startswith="view_")
    for name, permissions in (
        ("viewer", viewing),
        ("operator", viewing | of_tasks.filter(codename="change_durabletask")),
        ("admin", of_tasks | webhook),
    ):
        for group in Group.objects.filter(name=name):
            group.permissions.add(*permissions)


_STEPS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("tiers", _tiers),
    ("strategy-models", _strategy_models),
    ("embedded-models", _embedded_models),
    ("agents", _agents),
    ("roles", _roles),
    ("task-roles", _task_roles),
)
