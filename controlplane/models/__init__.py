"""Stored state, by subject. Everything outside imports from here."""

from controlplane.models.agents import Agent, AgentKey
from controlplane.models.catalogue import LanguageModel, Node, Tier
from controlplane.models.chores import Chore
from controlplane.models.decisions import AuditEntry, Suggestion, ThresholdRevision
from controlplane.models.history import CachedAnswer, Metric, RequestRecord
from controlplane.models.replays import Replay, Traffic
from controlplane.models.sign_in import SignInAttempt
from controlplane.models.state import EngineState, SeedStep, StateVersion
from controlplane.models.tasks import Batch, DurableTask, WebhookDelivery

__all__ = [
    "Agent",
    "AgentKey",
    "AuditEntry",
    "Batch",
    "CachedAnswer",
    "Chore",
    "DurableTask",
    "EngineState",
    "LanguageModel",
    "Metric",
    "Node",
    "Replay",
    "RequestRecord",
    "SeedStep",
    "SignInAttempt",
    "StateVersion",
    "Suggestion",
    "ThresholdRevision",
    "Tier",
    "Traffic",
    "WebhookDelivery",
]
