"""Work in the background that only one process at a time may do: who does it now, and how it ended last.

Rule: one row a chore. It is claimed by a conditional UPDATE (controlplane/chores.py), never by reading first.
"""

from django.db import models


class Chore(models.Model):
    """`owner` is "" while nobody does it; a claim that is not renewed until `lease_until` is lost."""

    name = models.SlugField(max_length=40, primary_key=True)
    owner = models.CharField(max_length=150, blank=True)
    began_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    done = models.FloatField("share done", default=0.0)
    ended_at = models.DateTimeField(null=True)
    failed = models.BooleanField(default=False)
    said = models.CharField(max_length=500, blank=True)
    result = models.JSONField(default=dict, blank=True)  # what the last one that ended well found

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
