"""What the engine leaves behind: request records, cached answers and metrics. Written in batches by `stores`.

Rule: no foreign keys; history outlives the agents and models it names. Durations in seconds.
"""

from django.db import models
from django.db.models import Q


class RequestRecord(models.Model):
    """One ended request, with every decision and its reason (`optimizer.ports.Record`)."""

    class Status(models.TextChoices):
        REPLIED = "replied", "replied"
        REJECTED = "rejected", "rejected"
        CANCELLED = "cancelled", "cancelled"
        FAILED = "failed", "failed"

    id = models.CharField(max_length=64, primary_key=True)
    agent = models.CharField(max_length=60)
    protocol = models.CharField(max_length=12)
    kind = models.CharField(max_length=12)
    wanted = models.CharField(max_length=120)
    model = models.CharField(max_length=120, blank=True)
    tier = models.CharField(max_length=20, blank=True)
    status = models.CharField(max_length=12, choices=Status)
    error = models.CharField(max_length=500, blank=True)
    arrived_at = models.DateTimeField()
    queue_s = models.FloatField()
    load_s = models.FloatField()
    prefill_s = models.FloatField()
    decode_s = models.FloatField()
    ttft_s = models.FloatField("time to first token (s)")
    total_s = models.FloatField()
    prompt_tokens_original = models.PositiveIntegerField()
    prompt_tokens = models.PositiveIntegerField()
    output_tokens = models.PositiveIntegerField()
    cache = models.CharField(max_length=12)
    complexity = models.FloatField(null=True)
    done_reason = models.CharField(max_length=40, blank=True)
    simulated = models.BooleanField()
    decisions = models.JSONField(default=list)
    prompt_original = models.TextField(blank=True)  # "" when prompts are not stored
    prompt_sent = models.TextField(blank=True)
    answer = models.TextField(blank=True)
    good = models.BooleanField("outcome", null=True)  # what the caller said of the answer; null = nothing yet

    class Meta:
        ordering = ("-arrived_at",)
        indexes = (
            models.Index(fields=["-arrived_at"], name="record_time"),
            models.Index(fields=["agent", "-arrived_at"], name="record_agent_time"),
            models.Index(fields=["model", "-arrived_at"], name="record_model_time"),
            models.Index(fields=["status", "-arrived_at"], name="record_status_time"),
            models.Index(fields=["agent", "tier"], condition=Q(good__isnull=False), name="record_outcomes"),
        )
        permissions = (("read_prompts", "Can read the prompts and answers of requests"),)

    def __str__(self) -> str:
        return self.id

    @property
    def tokens_saved(self) -> int:
        """Prompt tokens that compression and context management took away."""
        return max(0, self.prompt_tokens_original - self.prompt_tokens)


class CachedAnswer(models.Model):
    """An answer that may be given again, until it is older than the TTL threshold (`optimizer.core.caching`).

    An invalidated one stays until the engine has let go of its copy; storing the answer anew makes it valid again.
    """

    key = models.CharField(max_length=128, primary_key=True)  # hash of everything that must be equal
    partition = models.CharField(max_length=128, db_index=True)  # within which similar questions may match
    agent = models.CharField(max_length=60, db_index=True)
    group = models.CharField(max_length=80, db_index=True)
    model = models.CharField(max_length=120, db_index=True)
    question = models.TextField(blank=True)
    text = models.TextField("answer", blank=True)
    thinking = models.TextField(blank=True)
    done_reason = models.CharField(max_length=40, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    embedding = models.BinaryField(null=True)  # float32, little-endian
    stored_at = models.DateTimeField(db_index=True)
    hits = models.PositiveIntegerField(default=0)
    invalidated_at = models.DateTimeField(null=True, db_index=True)

    class Meta:
        ordering = ("-stored_at",)

    def __str__(self) -> str:
        return self.question[:80] or self.key[:12]


class Metric(models.Model):
    """One series' values within one minute or hour."""

    class Resolution(models.TextChoices):
        MINUTE = "minute", "minute"
        HOUR = "hour", "hour"

    name = models.CharField(max_length=60)
    labels = models.CharField(max_length=200, blank=True)  # "agent=x,model=y", names sorted
    resolution = models.CharField(max_length=6, choices=Resolution)
    start = models.DateTimeField()
    count = models.PositiveBigIntegerField()
    sum = models.FloatField()
    min = models.FloatField()
    max = models.FloatField()
    sketch = models.JSONField(default=dict, blank=True)  # histogram bucket -> count, for quantiles

    class Meta:
        ordering = ("name", "labels", "-start")
        constraints = (models.UniqueConstraint("resolution", "name", "labels", "start", name="one_metric_per_bucket"),)
        indexes = (models.Index(fields=["start"], name="metric_start"),)

    def __str__(self) -> str:
        return f"{self.name}{{{self.labels}}} {self.start:%Y-%m-%d %H:%M}"
