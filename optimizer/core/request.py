"""A request as it enters, and the agent it belongs to: plain values, whatever protocol brought them.

Rule: nothing here is rewritten in place; each pipeline stage returns a new value.
Must not know: HTTP, how the answer is delivered, which model will run it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

AUTO = "auto"  # `Request.wanted` when the caller leaves the choice of model to us


class Priority(IntEnum):
    """Smaller runs first; never at the price of the starvation bound."""

    INTERACTIVE = 0
    AGENT = 1
    BATCH = 2


class Kind(StrEnum):
    CHAT = "chat"
    GENERATE = "generate"  # a bare prompt, /api/generate and /v1/completions
    EMBED = "embed"


class CacheMode(StrEnum):
    """How an agent's answers may be reused. STRICT is the default guard of caching.py."""

    OFF = "off"
    EXACT = "exact"
    LIGHT = "light"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool_calls` holds [{"id", "name", "arguments": dict}]; `images` base64 strings."""

    role: str  # system | user | assistant | tool
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str = ""  # on a tool message: the call it answers
    tool_name: str = ""
    images: tuple[str, ...] = ()
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """The strategy's task hints. None means the caller did not say."""

    task_type: str = ""  # code_generation | creative_writing | analysis | ... ; "" = the agent's own
    reasoning_steps: int | None = None
    expected_lines: int | None = None
    expertise_level: float | None = None  # 0..1
    context: str = ""
    template: str = ""  # code | list | json | ""
    language: str = ""  # of a code template


@dataclass(frozen=True, slots=True)
class Request:
    """One request, validated. Explicit generation options in `options` win over ours."""

    id: str
    agent: str  # slug
    kind: Kind
    messages: tuple[Message, ...]
    wanted: str = AUTO  # auto | a tier slug | a model name
    task: Task = Task()
    options: Mapping[str, Any] = field(default_factory=dict)  # Ollama's option names
    tools: tuple[Mapping[str, Any], ...] = ()
    format: Any = None  # None | "json" | a JSON schema
    think: bool | str | None = None
    inputs: tuple[str, ...] = ()  # EMBED only: the texts
    suffix: str = ""  # GENERATE only: fill-in-the-middle
    raw: bool = False  # GENERATE only: no chat template
    stream: bool = False
    priority: Priority | None = None  # None = the agent's own
    deadline_s: float | None = None  # seconds from arrival
    cache_read: bool = True  # Cache-Control: no-cache turns it off
    cache_write: bool = True  # Cache-Control: no-store turns it off
    conversation: str = ""  # caller's id of the conversation, if it gave one
    protocol: str = "control"  # openai | ollama | control: for the record only


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """What the engine knows of an agent; kept in memory, fresh by reload (never read per request)."""

    slug: str
    tier: str
    task_type: str = ""
    expertise_level: float = 0.5
    weight: float = 1.0  # share in the fair queue
    priority: Priority = Priority.AGENT
    cache: CacheMode = CacheMode.STRICT
    cache_group: str = ""  # "" = the agent's own; answers never cross groups
    compress: bool = True
    combine: bool = False  # opted in to combined prompts (batching)
    min_tier: str = "default"
    max_tier: str = "opus"
    max_waiting: int = 0  # 0 = the threshold's
    requests_per_minute: int = 0  # 0 = no limit, here and below (quota.py)
    tokens_per_minute: int = 0
    max_concurrent: int = 0  # waiting and running
    paused: bool = False
    store_prompts: bool = True

    @property
    def group(self) -> str:
        """The cache group; alone unless an admin put it in one."""
        return self.cache_group or f"agent:{self.slug}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One stage's choice, with its reason in a sentence and the figures behind it."""

    stage: str  # context | selection | generation | compression | cache | admission | schedule | template
    choice: str
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)
