"""Tiers and models: what the strategy's three tiers are and what each model costs.

Rule: tiers are keyed by slug, never by a model's name (strategy fault 3 in DESIGN.md).
Must not know: which backend serves a model, or where its file is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

OPUS, SONNET, DEFAULT = "opus", "sonnet", "default"
TIER_SLUGS = (DEFAULT, SONNET, OPUS)  # weakest first: the index is the tier's rank


def rank(tier: str) -> int:
    """0 for the weakest tier, 2 for the strongest. Raises KeyError for an unknown slug (a bug)."""
    try:
        return TIER_SLUGS.index(tier)
    except ValueError:
        raise KeyError(tier) from None


class CompressionLevel(StrEnum):
    """How far a tier's prompts are rewritten."""

    AGGRESSIVE = "aggressive"
    MODERATE = "moderate"
    MINIMAL = "minimal"


class Residency(StrEnum):
    """When a model should be in VRAM, in the strategy's own three cases."""

    ALWAYS = "always"  # tinyllama
    IF_FITS = "if_fits"  # qwen
    ON_DEMAND = "on_demand"  # deepseek


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier: what it is for and how its prompts and answers are shaped."""

    slug: str
    model: str
    prompt_budget_tokens: int
    compression: CompressionLevel
    target_s: float  # response-time target (SLO), seconds


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is declared about a model until the backend has measured it.

    Speeds are tokens per second for one stream alone; sources are the strategy (footprints) and
    research/scheduling.md (speeds, load times).
    """

    name: str
    tier: str
    footprint_mb: int
    context_window: int  # tokens; the pinned num_ctx
    residency: Residency
    load_s: float
    prefill_tps: float
    decode_tps: float
    max_tokens: int  # default answer length limit
    temperature_factor: float = 1.0
    temperature_range: tuple[float, float] = (0.0, 2.0)  # the guideline's range, for lint
    supports_tools: bool = False
    supports_thinking: bool = False
    supports_images: bool = False
    embeds: bool = True


STRATEGY_MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="tinyllama",
        tier=DEFAULT,
        footprint_mb=800,
        context_window=2048,
        residency=Residency.ALWAYS,
        load_s=1.2,
        prefill_tps=3000,
        decode_tps=120,
        max_tokens=512,
        temperature_factor=0.8,
        temperature_range=(0.3, 0.5),
    ),
    ModelSpec(
        name="qwen2.5-coder:7b",
        tier=SONNET,
        footprint_mb=2500,
        context_window=4096,
        residency=Residency.IF_FITS,
        load_s=4.0,
        prefill_tps=600,
        decode_tps=45,
        max_tokens=2048,
        temperature_range=(0.5, 0.7),
        supports_tools=True,
    ),
    ModelSpec(
        name="deepseek-r1:8b",
        tier=OPUS,
        footprint_mb=3200,
        context_window=4096,
        residency=Residency.ON_DEMAND,
        load_s=6.0,
        prefill_tps=500,
        decode_tps=40,
        max_tokens=4096,
        temperature_factor=1.1,
        temperature_range=(0.7, 0.9),
        supports_tools=True,
        supports_thinking=True,
    ),
)

STRATEGY_TIERS: tuple[Tier, ...] = (
    Tier(DEFAULT, "tinyllama", 500, CompressionLevel.AGGRESSIVE, target_s=5.0),
    Tier(SONNET, "qwen2.5-coder:7b", 1000, CompressionLevel.MODERATE, target_s=30.0),
    Tier(OPUS, "deepseek-r1:8b", 2000, CompressionLevel.MINIMAL, target_s=90.0),
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The tiers and the models this engine serves, by slug and by name."""

    tiers: Mapping[str, Tier]
    models: Mapping[str, ModelSpec]

    def model_of(self, tier: str) -> ModelSpec:
        """The model that serves a tier. Raises KeyError for an unknown slug."""
        return self.models[self.tiers[tier].model]

    def tier_of(self, model: str) -> Tier:
        """The tier a model belongs to. Raises KeyError for an unknown model."""
        return self.tiers[self.models[model].tier]


def catalogue(tiers: tuple[Tier, ...], models: tuple[ModelSpec, ...]) -> Catalogue:
    """A catalogue from rows; later rows of one name win."""
    return Catalogue({t.slug: t for t in tiers}, {m.name: m for m in models})


STRATEGY_CATALOGUE = catalogue(STRATEGY_TIERS, STRATEGY_MODELS)
