"""Tiers, the models that serve them, and the node they run on.

Rule: a tier is known by its slug; which model serves it depends on the backend, so each backend has its own
default model per tier. Prompt budgets are thresholds, not columns: one place for each number.
"""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from controlplane.models.state import EngineState
from optimizer.core import tiers as core
from optimizer.core.thresholds import limits


def _within(threshold: str) -> list[Any]:
    """Validators for a field that stands in for a threshold."""
    limit = limits()[threshold]
    return [MinValueValidator(int(limit.low or 0)), MaxValueValidator(int(limit.high or 0))]


class Tier(EngineState):
    """One of the strategy's three tiers."""

    class Compression(models.TextChoices):
        AGGRESSIVE = core.CompressionLevel.AGGRESSIVE, "aggressive"
        MODERATE = core.CompressionLevel.MODERATE, "moderate"
        MINIMAL = core.CompressionLevel.MINIMAL, "minimal"

    slug = models.SlugField(primary_key=True, max_length=20)
    name = models.CharField(max_length=80)
    rank = models.PositiveSmallIntegerField(help_text="0 for the weakest tier.")
    purpose = models.CharField(max_length=200)
    use_cases = models.JSONField(default=list, help_text="The strategy's use cases, a list of names.")
    guidelines = models.TextField(blank=True, help_text="How to use this tier, shown to people.")
    compression = models.CharField(max_length=12, choices=Compression, help_text="How far prompts are rewritten.")
    target_s = models.FloatField(
        "response-time target (s)",
        validators=[MinValueValidator(0.1), MaxValueValidator(3600)],
        help_text="Answers later than this count as late; the scheduler weighs waiting against it.",
    )

    class Meta:
        ordering = ("-rank",)

    def __str__(self) -> str:
        return self.name


class LanguageModel(EngineState):
    """A model as one backend serves it: what is declared, and what was measured since."""

    class Backend(models.TextChoices):
        OLLAMA = "ollama", "Ollama (and the simulated card)"
        LLAMACPP = "llamacpp", "embedded llama.cpp"

    class Residency(models.TextChoices):
        ALWAYS = core.Residency.ALWAYS, "always loaded"
        IF_FITS = core.Residency.IF_FITS, "loaded if it fits"
        ON_DEMAND = core.Residency.ON_DEMAND, "on demand"

    backend = models.CharField(max_length=12, choices=Backend)
    name = models.CharField(max_length=120, help_text="As the backend knows it, tag included.")
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="models")
    is_tier_default = models.BooleanField("serves its tier", default=False)
    enabled = models.BooleanField(default=True, help_text="Off: not offered and not chosen.")
    residency = models.CharField(max_length=12, choices=Residency, default=Residency.ON_DEMAND)

    footprint_mb = models.PositiveIntegerField("footprint (MB)", validators=[MinValueValidator(1)])
    context_window = models.PositiveIntegerField("context window (tokens)", validators=[MinValueValidator(128)])
    load_s = models.FloatField("load time (s)", validators=[MinValueValidator(0.0)])
    prefill_tps = models.FloatField("prefill (tokens/s)", validators=[MinValueValidator(0.1)])
    decode_tps = models.FloatField("decode (tokens/s)", validators=[MinValueValidator(0.1)])
    max_tokens = models.PositiveIntegerField("answer limit (tokens)", validators=[MinValueValidator(1)])
    temperature_factor = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(0.1), MaxValueValidator(3.0)],
        help_text="The task's temperature is multiplied by this.",
    )
    temperature_low = models.FloatField(default=0.0, validators=[MinValueValidator(0.0), MaxValueValidator(2.0)])
    temperature_high = models.FloatField(default=2.0, validators=[MinValueValidator(0.0), MaxValueValidator(2.0)])
    supports_tools = models.BooleanField(default=False)
    supports_thinking = models.BooleanField(default=False)
    supports_images = models.BooleanField(default=False)
    embeds = models.BooleanField("makes embeddings", default=True)
    use_cases = models.TextField(blank=True)
    guidelines = models.TextField(blank=True)

    measured_footprint_mb = models.FloatField(null=True, blank=True)
    measured_vram_mb = models.FloatField(null=True, blank=True)
    measured_load_s = models.FloatField(null=True, blank=True)
    measured_prefill_tps = models.FloatField(null=True, blank=True)
    measured_decode_tps = models.FloatField(null=True, blank=True)
    measured_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("backend", "-tier__rank", "name")
        constraints = (
            models.UniqueConstraint(
                fields=["backend", "name"],
                name="one_model_per_backend_and_name",
                violation_error_message="This backend has a model of that name already.",
            ),
            models.UniqueConstraint(
                fields=["backend", "tier"],
                condition=Q(is_tier_default=True),
                name="one_default_model_per_backend_and_tier",
                violation_error_message="Another model serves this tier there; use the action 'Let it serve its tier'.",
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.temperature_low > self.temperature_high:
            raise ValidationError({"temperature_low": "must not be above the upper end of the range"})
        if self.is_tier_default and not self.enabled:
            raise ValidationError({"enabled": "this model serves its tier: give the tier another model first"})

    def spec(self) -> core.ModelSpec:
        """The engine's view. A measured figure counts before the declared one."""
        return core.ModelSpec(
            name=self.name,
            tier=self.tier_id,
            footprint_mb=round(self.measured_footprint_mb or self.footprint_mb),
            context_window=self.context_window,
            residency=core.Residency(self.residency),
            load_s=self.measured_load_s or self.load_s,
            prefill_tps=self.measured_prefill_tps or self.prefill_tps,
            decode_tps=self.measured_decode_tps or self.decode_tps,
            max_tokens=self.max_tokens,
            temperature_factor=self.temperature_factor,
            temperature_range=(self.temperature_low, self.temperature_high),
            supports_tools=self.supports_tools,
            supports_thinking=self.supports_thinking,
            supports_images=self.supports_images,
            embeds=self.embeds,
        )

    @classmethod
    def from_spec(cls, backend: str, spec: core.ModelSpec, **others: Any) -> "LanguageModel":
        """An unsaved row that declares what `spec` says."""
        low, high = spec.temperature_range
        return cls(
            backend=backend,
            name=spec.name,
            tier_id=spec.tier,
            residency=spec.residency.value,
            footprint_mb=spec.footprint_mb,
            context_window=spec.context_window,
            load_s=spec.load_s,
            prefill_tps=spec.prefill_tps,
            decode_tps=spec.decode_tps,
            max_tokens=spec.max_tokens,
            temperature_factor=spec.temperature_factor,
            temperature_low=low,
            temperature_high=high,
            supports_tools=spec.supports_tools,
            supports_thinking=spec.supports_thinking,
            supports_images=spec.supports_images,
            embeds=spec.embeds,
            **others,
        )


class Node(EngineState):
    """A place where models run: one Ollama host, the embedded engine or the simulated card."""

    class Kind(models.TextChoices):
        OLLAMA = "ollama", "Ollama"
        LLAMACPP = "llamacpp", "embedded llama.cpp"
        SIMULATED = "simulated", "simulated card"

    class State(models.TextChoices):
        UNKNOWN = "unknown", "not seen yet"
        READY = "ready", "ready"
        LOST = "lost", "lost"
        DRAINING = "draining", "draining"
        DRAINED = "drained", "drained for maintenance"
        STOPPED = "stopped", "stopped"

    name = models.SlugField(max_length=60, unique=True)
    kind = models.CharField(max_length=12, choices=Kind)
    url = models.URLField(blank=True, help_text="Empty for the embedded engine and the simulated card.")
    enabled = models.BooleanField(default=True, help_text="Off: an engine does not start here.")
    gpu_memory_mb = models.PositiveIntegerField(
        "memory of its GPU (MB)",
        null=True,
        blank=True,
        validators=_within("gpu_memory_mb"),
        help_text="Empty: as the threshold gpu_memory_mb says. Takes effect at once.",
    )
    slots = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=_within("slots"),
        help_text="Requests that run here at once. Empty: as the threshold slots says. Takes effect at once.",
    )
    threshold_defaults = models.JSONField(
        default=dict,
        blank=True,
        help_text="Thresholds this node brings (its memory, its slots); they hold until an admin sets them.",
    )
    state = models.CharField(max_length=12, choices=State, default=State.UNKNOWN, editable=False)
    state_reason = models.CharField(max_length=300, blank=True, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    seen_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def own_thresholds(self) -> dict[str, Any]:
        """The thresholds that hold on this node only."""
        values = {"gpu_memory_mb": self.gpu_memory_mb, "slots": self.slots}
        return {name: value for name, value in values.items() if value is not None}
