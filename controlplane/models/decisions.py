"""What people (and the tuner) decided: threshold revisions, suggestions, and who did what.

Rule: rows here are history. They are added, never edited, except a suggestion's state.
"""

from django.db import models

from controlplane.models.state import EngineState


class ThresholdRevision(EngineState):
    """One change of the thresholds. The latest row is in force."""

    changes = models.JSONField(default=dict)  # name -> [before, after]
    values = models.JSONField(default=dict)  # every threshold as it was in force after this change
    explicit = models.JSONField(default=list)  # names that people have set; the others keep following their defaults
    author = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(auto_now_add=True)
    reverted_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="reverts")

    class Meta:
        ordering = ("-pk",)
        verbose_name = "change of thresholds"
        verbose_name_plural = "thresholds"

    def __str__(self) -> str:
        return f"revision {self.pk}"


class Suggestion(models.Model):
    """An adjustment the adaptive optimiser proposes, with what speaks for it."""

    class Severity(models.TextChoices):
        LOW = "low", "low"
        MEDIUM = "medium", "medium"
        HIGH = "high", "high"

    class State(models.TextChoices):
        OPEN = "open", "open"
        APPLIED = "applied", "applied"
        DISMISSED = "dismissed", "dismissed"
        ROLLED_BACK = "rolled_back", "rolled back"

    rule = models.SlugField(max_length=60)
    severity = models.CharField(max_length=8, choices=Severity)
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    change = models.JSONField(default=dict, blank=True)  # threshold name -> proposed value
    evidence = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    actor = models.CharField(max_length=150, blank=True)
    revision = models.ForeignKey(ThresholdRevision, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ("-created_at",)
        constraints = (
            models.UniqueConstraint("rule", condition=models.Q(state="open"), name="one_open_suggestion_per_rule"),
        )

    def __str__(self) -> str:
        return self.title


class AuditEntry(models.Model):
    """Who changed what, when."""

    actor = models.CharField(max_length=150, db_index=True)
    action = models.CharField(max_length=40, db_index=True)  # add | change | delete | issue_key | revoke_key | ...
    target = models.CharField(max_length=200)  # "agent system-architect", "thresholds"
    detail = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-at", "-pk")
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}"
