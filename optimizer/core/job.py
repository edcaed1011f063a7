"""What the scheduler knows of a request: owner, model, sizes and urgency. Never its text."""

from dataclasses import dataclass

from optimizer.core.request import Priority


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of GPU work. Times are seconds on the runner's monotonic clock."""

    id: str
    agent: str
    model: str
    prompt_tokens: int
    expected_tokens: int  # predicted answer length; 0 for embeddings
    target_s: float  # response-time target of its tier
    priority: Priority = Priority.AGENT
    weight: float = 1.0
    deadline: float | None = None  # absolute
    prefix: str = ""  # hash of what a KV slot could reuse; equal prefixes like the same slot
    max_waiting: int = 0  # the agent's own limit; 0 = the threshold's
