"""What goes in and out of /control/v1, as pydantic models: validation, and the OpenAPI document, from one place.

Rule: unknown fields are refused, so that a misspelt hint is not silently ignored.
Must not know: how a field is used.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TierSlug = Literal["default", "sonnet", "opus"]
PriorityName = Literal["interactive", "agent", "batch"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MessageIn(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class TaskIn(Strict):
    """The strategy's task: a prompt or messages, and hints about how hard it is."""

    prompt: str = Field("", description="The question; alternatively `messages`.")
    messages: list[MessageIn] = Field(default_factory=list, max_length=10_000)
    model: str = Field("auto", description="auto, a tier (opus, sonnet, default) or a model name.", max_length=200)
    task_type: str = Field(
        "", description="code_generation, creative_writing, analysis, ...; empty: the agent's own.", max_length=64
    )
    reasoning_steps: int | None = Field(None, ge=0, le=1000, description="How many steps the answer takes.")
    context: str = Field("", description="Material that the prompt is about.")
    expected_lines: int | None = Field(None, ge=0, le=1_000_000, description="Length of the answer, in lines.")
    expertise_level: float | None = Field(None, ge=0, le=1, description="0 everyday to 1 specialist.")
    template: Literal["", "code", "list", "json"] = Field("", description="Shape to put the answer into.")
    language: str = Field("", max_length=32, description="Language of a code template.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    seed: int | None = Field(None, ge=-(2**31), le=2**31 - 1)
    stop: list[str] = Field(default_factory=list, max_length=16)
    priority: PriorityName | None = None
    deadline_s: float | None = Field(None, gt=0, le=86_400, description="Refuse now what cannot be done by then.")
    conversation: str = Field("", max_length=128, description="Keeps the tier of a conversation from falling.")
    cache: bool = Field(True, description="false: neither answer from the cache nor store in it.")
    stream: bool = Field(False, description="true: server-sent events waiting, started, delta, completed, error.")

    wait: bool = Field(True, description="false: store it, answer 202 with an id at once, and work it off later.")

    @model_validator(mode="after")
    def one_question(self) -> "TaskIn":
        if bool(self.prompt.strip()) == bool(self.messages):
            raise ValueError("give either prompt or messages, and not empty")
        if self.messages and not any(m.content.strip() for m in self.messages if m.role == "user"):
            raise ValueError("messages need at least one user message with content")
        if self.stream and not self.wait:
            raise ValueError("a task with wait=false has no stream; read GET /control/v1/tasks/ID/events instead")
        return self


class FeedbackIn(Strict):
    """How good an answer was; improves the choice of tier for its agent."""

    outcome: Literal["good", "bad"]


class AgentIn(Strict):
    """An agent as an admin writes it. On PATCH only the given fields change."""

    slug: str = Field("", pattern=r"^[-a-zA-Z0-9_]{0,60}$")
    name: str = Field("", max_length=80)
    description: str = Field("", max_length=300)
    tier: TierSlug = "default"
    use_case: str = Field("", max_length=80)
    task_type: str = Field("", max_length=40)
    expertise_level: float = Field(0.5, ge=0, le=1)
    tags: str = Field("", max_length=200)
    weight: float = Field(1.0, ge=0.01, le=100)
    priority: PriorityName = "agent"
    min_tier: TierSlug = "default"
    max_tier: TierSlug = "opus"
    max_waiting: int = Field(0, ge=0, le=1_000_000)
    requests_per_minute: int = Field(0, ge=0, le=1_000_000, description="0: no limit.")
    tokens_per_minute: int = Field(0, ge=0, le=1_000_000_000, description="Read and written on the GPU; 0: no limit.")
    max_concurrent: int = Field(0, ge=0, le=1_000_000, description="Waiting and running together; 0: no limit.")
    cache: Literal["off", "exact", "light", "strict"] = "strict"
    cache_group: str = Field("", pattern=r"^[-a-zA-Z0-9_]{0,60}$")
    compress: bool = True
    combine: bool = False
    store_prompts: bool = True
    paused: bool = False


class ControlIn(Strict):
    """What an action of live control is about."""

    target: str = Field("", max_length=200, description="The model, request id or agent slug; empty for intake.")


class ThresholdsIn(Strict):
    """Thresholds to change, with the reason that the history shows."""

    changes: dict[str, Any] = Field(min_length=1)
    reason: str = Field(min_length=1, max_length=500)
