"""Replays that people asked for, and traffic that they brought along.

Rule: a running replay is a row that its own process moves; whoever wants it stopped changes the state, and the
process sees that its next update found no row. Must not know: how a replay works.
"""

from django.db import models

from controlplane.models.decisions import Suggestion


class Traffic(models.Model):
    """Imported traffic: the JSON lines of `manage.py record`, checked when they came in."""

    name = models.CharField(max_length=120)
    lines = models.TextField()
    requests = models.PositiveIntegerField()
    span_s = models.FloatField()
    author = models.CharField(max_length=150)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-at",)
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Replay(models.Model):
    """One comparison: traffic, a change of thresholds, and what came of it."""

    class State(models.TextChoices):
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    traffic = models.ForeignKey(Traffic, null=True, on_delete=models.CASCADE, related_name="replays")  # null = recorded
    since = models.DateTimeField(null=True)  # of recorded traffic
    until = models.DateTimeField(null=True)
    change = models.JSONField(default=dict)  # threshold name -> value
    author = models.CharField(max_length=150)
    started_at = models.DateTimeField(auto_now_add=True, db_index=True)
    moved_at = models.DateTimeField()  # the last sign of life
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    done = models.PositiveIntegerField(default=0)  # pieces, of both settings
    total = models.PositiveIntegerField(default=0)  # 0 = the traffic is being read
    result = models.JSONField(default=dict)  # optimizer.simulation.compared.data, and the setting it ran under
    error = models.CharField(max_length=500, blank=True)
    suggestion = models.OneToOneField(Suggestion, null=True, on_delete=models.SET_NULL, related_name="replay")

    class Meta:
        ordering = ("-pk",)
        default_permissions = ()

    def __str__(self) -> str:
        return f"replay {self.pk}"

    @property
    def title(self) -> str:
        """The change in words."""
        return ", ".join(f"{name} = {_shown(value)}" for name, value in self.change.items())

    @property
    def about(self) -> str:
        """Which traffic."""
        if self.traffic is not None:
            return f"{self.traffic.name}"
        return f"recorded {self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
