"""The ports: what the runner needs from a model backend and from its surroundings.

Rule: adapters depend on this module, never the other way round. A backend owns its node: it never has
more in flight than it is told to start, and loads and evicts only when told to.
Must not know: which adapter is behind a port.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optimizer.core.caching import CacheEntry
from optimizer.core.events import Resident
from optimizer.core.request import Decision, Message, Request
from optimizer.core.tiers import Catalogue, ModelSpec


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the backend has on disk. Facts it does not know stay at their defaults."""

    name: str
    size_mb: float = 0.0  # of the file
    digest: str = ""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 0  # the model's own maximum, 0 = unknown
    capabilities: tuple[str, ...] = ()  # completion | tools | thinking | vision | embedding
    modified_at: str = ""  # ISO 8601
    template: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Measured by the backend: memory taken in all, the part of it in VRAM, and the time it took."""

    footprint_mb: float
    vram_mb: float
    load_s: float


@dataclass(frozen=True, slots=True)
class Call:
    """One generation, fully decided. `options` uses Ollama's option names (num_predict, temperature, ...)."""

    model: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    format: Any = None
    think: bool | str | None = None
    suffix: str = ""
    raw: bool = False  # the single message's content goes to the model without a chat template
    slot: int = 0  # which of the node's slots it runs on


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The last item of every generation that did not raise. Durations in seconds, 0.0 = not reported."""

    done_reason: str  # stop | length
    prompt_tokens: int
    output_tokens: int
    prefill_s: float = 0.0
    decode_s: float = 0.0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class Backend(Protocol):
    """A node that holds models. Every method raises BackendUnavailable when nothing answers."""

    name: str  # ollama | llamacpp | simulated
    simulated: bool  # its answers are labelled wherever they appear

    async def start(self) -> None:
        """Get ready; raises BackendUnavailable or ModelFileMissing with what to do."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """Models on disk."""
        ...

    async def residents(self) -> Sequence[Resident]:
        """Models in memory, as measured."""
        ...

    async def load(self, spec: ModelSpec) -> LoadReport:
        """Bring a model in under its pinned runner profile. Raises LoadFailed, ModelFileMissing."""
        ...

    async def evict(self, model: str) -> None:
        """Put a model out; returns when its memory is free. Evicting an absent model is no error."""
        ...

    def generate(self, call: Call) -> AsyncGenerator[Delta | Finished, None]:
        """Deltas, then one Finished. The model must be loaded. Raises GenerationFailed.

        Closing the iterator stops the generation and returns once the slot is free again.
        """
        ...

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any]) -> Embedded:
        """One vector per input. The model must be loaded. Raises UnsupportedFeature, GenerationFailed."""
        ...

    async def probe(self, model: str | None) -> None:
        """Prove it can work: one token from `model` if one is loaded, else that it answers.

        Raises BackendUnavailable when it does not within a few seconds (dead or wedged).
        """
        ...

    async def recover(self) -> None:
        """Try to bring a wedged backend back (restart children, unload and reload). May do nothing."""
        ...

    async def close(self) -> None: ...


class TokenCounter(Protocol):
    """Counts tokens of a text by the model's tokenizer, or by a declared stand-in."""

    def __call__(self, text: str) -> int: ...


class Embedder(Protocol):
    """Texts -> float32 unit vectors, shape (len(texts), dimensions); a numpy array."""

    @property
    def name(self) -> str:
        """Vectors of embedders of different names are never compared."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longer texts are not embedded faithfully."""
        ...

    @property
    def strict_floor(self) -> float:
        """The similarity below which its neighbours are not worth the strict guard's look."""
        ...

    def __call__(self, texts: Sequence[str]) -> Any:
        """Raises NotPrepared where vectors must be fetched first (`embedders.prepared`)."""
        ...


class NotPrepared(Exception):
    """Vectors are not at hand: await `prepare()`, then ask again. A signal, not a fault; never leaves the runner.

    `prepare` gives "" when they are there now, else a sentence why they cannot be had.
    """

    def __init__(self, prepare: Callable[[], Awaitable[str]]) -> None:
        super().__init__("vectors must be fetched first")
        self.prepare = prepare


class RecordStore(Protocol):
    """Where finished requests go. Called on the event loop: must only buffer, never block."""

    def save(self, record: "Record") -> None: ...


class CacheStore(Protocol):
    """Where cached answers survive a restart. Called on the event loop: must only buffer, never block."""

    def put(self, entry: CacheEntry) -> None: ...

    def delete(self, keys: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One ended request, for history. Wall-clock seconds since the epoch; durations in seconds."""

    id: str
    agent: str
    protocol: str
    kind: str
    wanted: str
    model: str
    tier: str
    status: str  # replied | rejected | cancelled | failed
    error: str
    arrived_at: float
    queue_s: float
    load_s: float
    prefill_s: float
    decode_s: float
    ttft_s: float
    total_s: float
    prompt_tokens_original: int
    prompt_tokens: int
    output_tokens: int
    cache: str  # miss | exact | semantic | off | coalesced
    complexity: float | None
    done_reason: str
    simulated: bool
    decisions: tuple[Mapping[str, Any], ...]
    prompt_original: str  # "" when prompts are not stored
    prompt_sent: str
    answer: str
    good: bool | None = None  # False: the automatic check found it bad; callers' feedback replaces it


# --- what a caller of the engine sees ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """Still queued. `position` counts from 1 within its model's queue; `eta_s` to its start."""

    position: int
    eta_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """An answer begins: everything the response headers say is known now."""

    model: str
    tier: str
    complexity: float | None
    cache: str  # miss | exact | semantic | off | coalesced
    queue_s: float
    load_s: float  # time of this wait that model loads took
    tokens_saved: int
    decisions: tuple[Decision, ...]
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer is whole. Always the last item."""

    text: str
    thinking: str
    tool_calls: tuple[Mapping[str, Any], ...]
    done_reason: str  # stop | length | load | unload
    prompt_tokens: int
    output_tokens: int
    load_s: float
    prefill_s: float
    decode_s: float
    total_s: float
    decisions: tuple[Decision, ...]
    vectors: tuple[tuple[float, ...], ...] = ()  # of an embedding request


Reply = Waiting | Started | Delta | Completed


class Engine(Protocol):
    """What the web needs. Embedded: the runner itself; scaled: a client that speaks through Redis."""

    backend_name: str
    simulated: bool

    def submit(self, request: Request) -> AsyncGenerator[Reply, None]:
        """Waiting*, Started, Delta*, Completed; or an error of the tree, raised from the iterator.

        Closing the iterator cancels the request; nothing of it is left running. `request.agent` must be a
        known agent (a bug otherwise). `ModelNotFound` and the other RequestErrors come before any item.
        """
        ...

    def catalogue(self) -> Catalogue:
        """Tiers and models served now, discovered ones included."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """Models on the backend's disk."""
        ...

    async def residents(self) -> Sequence[Resident]:
        """Models in memory."""
        ...

    def unready(self) -> str:
        """Why no model can be served right now; "" when one can."""
        ...
