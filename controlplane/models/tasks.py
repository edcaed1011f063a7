"""Durable tasks: work that was accepted to be done later, the batches it came in, and the word sent when it ended.

Rule: no foreign keys to agents; a task outlives its agent. A row that has ended is never changed again, but by a
person who requeues it. Only `stores.durable` moves a task from one status to another.
"""

from django.db import models
from django.db.models import Q

from controlplane.models.agents import Agent


class DurableTask(models.Model):
    """One accepted task. A runner that works on it holds a claim: its name, an epoch, and a lease that it renews."""

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    UNFINISHED = (Status.QUEUED, Status.RUNNING)
    ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)

    number = models.BigAutoField(primary_key=True)  # in order of acceptance; the cursor of listings
    public_id = models.CharField("id", max_length=64, unique=True)
    agent = models.CharField(max_length=60)
    batch = models.ForeignKey("Batch", on_delete=models.CASCADE, null=True, related_name="tasks", db_index=False)
    line = models.PositiveIntegerField(null=True)  # of the batch's input, from 1
    custom_id = models.CharField(max_length=128, blank=True)  # the caller's own name for a batch's line
    idempotency_key = models.CharField(max_length=255, null=True)
    fingerprint = models.CharField(max_length=64, blank=True)  # SHA-256 of the body that came with the key
    priority = models.PositiveSmallIntegerField(choices=Agent.Priority)
    body = models.JSONField()  # `schemas.TaskIn`; {} once it ended, for agents whose prompts are not kept
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    created_at = models.DateTimeField()
    not_before = models.DateTimeField()  # not tried earlier
    started_at = models.DateTimeField(null=True)  # of the latest attempt
    finished_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)  # generations begun
    lost = models.PositiveIntegerField("runners lost", default=0)  # that held it and were not heard of again
    claim = models.CharField(max_length=32, blank=True)  # the runner that has it; "" = nobody
    epoch = models.PositiveIntegerField(default=0)  # grows with every claim: an older claim's result is refused
    lease_until = models.DateTimeField(null=True)
    model = models.CharField(max_length=120, blank=True)
    outcome = models.JSONField(null=True)  # the answer and how it came about (`task_form.outcome`)
    error = models.JSONField(null=True)  # {"type", "message"}

    class Meta:
        ordering = ("-number",)
        constraints = (models.UniqueConstraint(fields=["agent", "idempotency_key"], name="one_task_per_key"),)
        indexes = (
            models.Index(
                fields=["priority", "agent", "number", "not_before"],
                condition=Q(status="queued", claim=""),
                name="tasks_to_claim",
            ),
            models.Index(fields=["claim"], condition=~Q(claim=""), name="tasks_claimed"),
            models.Index(fields=["agent", "status", "number"], name="tasks_of_agent"),
            models.Index(fields=["status", "number"], name="tasks_by_status"),
            models.Index(fields=["batch", "status"], name="tasks_of_batch"),
            models.Index(fields=["batch", "line"], name="lines_of_batch"),
            models.Index(fields=["finished_at"], name="tasks_finished"),
        )

    def __str__(self) -> str:
        return self.public_id

    @property
    def request_id(self) -> str:
        """The request of the latest attempt, as the history of requests names it."""
        return f"{self.public_id}.{self.epoch}"


class Batch(models.Model):
    """Tasks that came in one file. It has finished when its last task has."""

    number = models.BigAutoField(primary_key=True)
    public_id = models.CharField("id", max_length=64, unique=True)
    agent = models.CharField(max_length=60)
    idempotency_key = models.CharField(max_length=255, null=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    total = models.PositiveIntegerField()
    created_at = models.DateTimeField()
    cancelled_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-number",)
        verbose_name_plural = "batches"
        constraints = (models.UniqueConstraint(fields=["agent", "idempotency_key"], name="one_batch_per_key"),)
        indexes = (
            models.Index(fields=["agent", "number"], name="batches_of_agent"),
            models.Index(fields=["number"], condition=Q(finished_at__isnull=True), name="batches_unfinished"),
            models.Index(fields=["finished_at"], name="batches_finished"),
        )

    def __str__(self) -> str:
        return self.public_id


class WebhookDelivery(models.Model):
    """What an agent's webhook is to be told of a task or batch that ended; kept until it was taken or given up."""

    class Status(models.TextChoices):
        PENDING = "pending", "pending"
        DELIVERED = "delivered", "delivered"
        FAILED = "failed", "given up"

    public_id = models.CharField("webhook-id", max_length=64, unique=True)
    agent = models.CharField(max_length=60)
    event = models.CharField(max_length=40)  # task.succeeded, batch.finished, ...
    task = models.OneToOneField(DurableTask, on_delete=models.CASCADE, null=True, related_name="delivery")
    batch = models.OneToOneField(Batch, on_delete=models.CASCADE, null=True, related_name="delivery")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True)
    error = models.CharField("last error", max_length=300, blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "webhook deliveries"
        indexes = (models.Index(fields=["next_at"], condition=Q(status="pending"), name="deliveries_due"),)

    def __str__(self) -> str:
        return f"{self.event} {self.public_id}"
