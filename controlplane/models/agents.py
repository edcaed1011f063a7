"""Agents and their keys.

Rule: a key's secret is never stored, only its SHA-256; with 256 random bits there is nothing to guess, so a slow
password hash would only cost time on every request.
"""

from datetime import datetime
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from controlplane.models.catalogue import Tier
from controlplane.models.state import EngineState
from optimizer.core import request as core
from optimizer.core.tiers import TIER_SLUGS, rank


def web_address(value: str) -> None:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.username and parts.port != 0
    except ValueError:
        good = False
    if not good or any(character <= " " for character in value):
        raise ValidationError("must be an http:// or https:// address without a user name")


class Agent(EngineState):
    """One of the agents that send requests."""

    class Priority(models.IntegerChoices):
        INTERACTIVE = core.Priority.INTERACTIVE, "interactive"
        AGENT = core.Priority.AGENT, "agent"
        BATCH = core.Priority.BATCH, "batch"

    class CacheMode(models.TextChoices):
        OFF = core.CacheMode.OFF, "off"
        EXACT = core.CacheMode.EXACT, "exact repeats only"
        LIGHT = core.CacheMode.LIGHT, "similar questions, light guard"
        STRICT = core.CacheMode.STRICT, "similar questions, strict guard"

    class TierBound(models.TextChoices):
        DEFAULT = "default", "Default"
        SONNET = "sonnet", "Sonnet"
        OPUS = "opus", "Opus"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=80)
    description = models.CharField(max_length=300, blank=True)
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="agents")
    use_case = models.CharField(max_length=80, blank=True, db_index=True)
    task_type = models.CharField(
        max_length=40, blank=True, help_text="Of requests that do not name one: code_generation, analysis, ..."
    )
    expertise_level = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="0 to 1; part of the complexity of requests that do not name one.",
    )
    tags = models.CharField(max_length=200, blank=True, help_text="Words separated by commas.")

    weight = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(0.01), MaxValueValidator(100.0)],
        help_text="Share in the fair queue: 2 gets twice as much as 1.",
    )
    priority = models.PositiveSmallIntegerField(choices=Priority, default=Priority.AGENT)
    min_tier = models.CharField(max_length=20, choices=TierBound, default=TierBound.DEFAULT)
    max_tier = models.CharField(max_length=20, choices=TierBound, default=TierBound.OPUS)
    max_waiting = models.PositiveIntegerField(default=0, help_text="Requests that may wait; 0 = the threshold's.")
    requests_per_minute = models.PositiveIntegerField(default=0, help_text="0 = no limit.")
    tokens_per_minute = models.PositiveIntegerField(
        default=0, help_text="Read and written on the GPU, counted when a request ends; 0 = no limit."
    )
    max_concurrent = models.PositiveIntegerField(
        "requests at once", default=0, help_text="Waiting and running together; 0 = no limit."
    )
    cache = models.CharField("answer cache", max_length=8, choices=CacheMode, default=CacheMode.STRICT)
    cache_group = models.SlugField(
        max_length=60, blank=True, help_text="Agents of one group share answers; empty = this agent alone."
    )
    compress = models.BooleanField("compress prompts", default=True)
    combine = models.BooleanField("may be combined with others in one prompt", default=False)
    store_prompts = models.BooleanField("keep prompts and answers in the history", default=True)
    paused = models.BooleanField(default=False, help_text="Its new requests are refused.")
    webhook_url = models.CharField(
        "webhook",
        max_length=500,
        blank=True,
        validators=[web_address],
        help_text="Told, signed, when a durable task or batch of this agent ends. Only people set it, no request can.",
    )
    webhook_secret = models.CharField(max_length=100, blank=True, editable=False)  # signs; see webhooks.py
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("slug",)
        permissions = (("set_webhook", "Can set an agent's webhook and see its secret"),)

    def __str__(self) -> str:
        return self.name or self.slug

    def clean(self) -> None:
        if rank(self.min_tier) > rank(self.max_tier):
            raise ValidationError({"min_tier": "must not be above the highest tier"})
        if self.tier_id in TIER_SLUGS and not rank(self.min_tier) <= rank(self.tier_id) <= rank(self.max_tier):
            raise ValidationError({"tier": f"must be from {self.min_tier} to {self.max_tier}"})

    def profile(self) -> core.AgentProfile:
        """The engine's view."""
        return core.AgentProfile(
            slug=self.slug,
            tier=self.tier_id,
            task_type=self.task_type,
            expertise_level=self.expertise_level,
            weight=self.weight,
            priority=core.Priority(self.priority),
            cache=core.CacheMode(self.cache),
            cache_group=self.cache_group,
            compress=self.compress,
            combine=self.combine,
            min_tier=self.min_tier,
            max_tier=self.max_tier,
            max_waiting=self.max_waiting,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_concurrent=self.max_concurrent,
            paused=self.paused,
            store_prompts=self.store_prompts,
        )


class AgentKey(EngineState):
    """A bearer key of an agent. Made by `keys.issue`, the only place that ever sees the secret."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=80, blank=True, help_text="Where it is used.")
    prefix = models.CharField(max_length=16, unique=True)
    digest = models.CharField(max_length=64)  # SHA-256 of the secret, hex
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        indexes = (models.Index(fields=["agent"], condition=Q(revoked_at__isnull=True), name="live_keys_of_agent"),)

    def __str__(self) -> str:
        return f"ng_{self.prefix}_…"

    def state(self, now: datetime) -> str:
        """live, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "live"
