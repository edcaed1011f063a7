"""The response cache: answers that may be given again, found by exact key or by a similar question.

An answer is looked up by the hash of everything that shapes it; failing that, among the questions of the same
partition (all of that but the last user message's words) by nearest neighbours, and then only if the guards agree:
similarity proposes, `guards` decide (research/quality.md). Bounded by entries (least recently used go first) and age.
Rule: no clock; `now` is passed in as wall-clock seconds, so that ages survive a restart.
Must not know: how texts become vectors, where entries are kept between runs, who asks.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from optimizer.core.guards import Reading, Verdict, compare, read
from optimizer.core.request import CacheMode, Kind, Message, Request

Vector = NDArray[np.float32]
NEIGHBOURS = 5  # candidates the guards look at (research/quality.md: top-5 neighbours + guard)


class _Window(Protocol):
    """The part of an embedder that eligibility depends on."""

    @property
    def max_tokens(self) -> int: ...


# --- keys ----------------------------------------------------------------------------------------


def exact_key(
    *,
    model: str,
    messages: Sequence[Message],
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
    format: Any,
    think: bool | str | None,
    kind: Kind,
    group: str,
    template: str = "",
    language: str = "",
    inputs: Sequence[str] = (),
    suffix: str = "",
    raw: bool = False,
) -> str:
    """SHA-256 (hex) over everything that changes the answer; equal keys may also share one generation."""
    parts = {
        "model": model, "messages": [_plain(message) for message in messages], "options": options, "tools": list(tools),
        "format": format, "think": think, "kind": kind.value, "group": group, "template": template,
        "language": language, "inputs": list(inputs), "suffix": suffix, "raw": raw,
    }  # fmt: skip
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_as_json)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def partition_key(*, messages: Sequence[Message], embedder: str = "", **rest: Any) -> str:
    """As `exact_key`, without the last user message's text: where a similar question may be answered alike.

    Of one embedder each: vectors of different ones are not compared, also not after a restart with another.
    """
    last = last_question(messages)
    blank = [Message(m.role, "", m.tool_calls, m.tool_call_id, m.tool_name, m.images, m.thinking) if i == last else m
             for i, m in enumerate(messages)]  # fmt: skip
    return hashlib.sha256(f"{embedder}\n{exact_key(messages=blank, **rest)}".encode()).hexdigest()


def last_question(messages: Sequence[Message]) -> int:
    """Index of the last user message; -1 if there is none."""
    return max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)


def _plain(message: Message) -> dict[str, Any]:
    return {
        "role": message.role, "content": message.content, "tool_calls": list(message.tool_calls),
        "tool_call_id": message.tool_call_id, "tool_name": message.tool_name, "images": list(message.images),
        "thinking": message.thinking,
    }  # fmt: skip


def _as_json(value: Any) -> Any:
    """Read-only mappings and tuples as JSON; anything else has no place in a key and raises TypeError."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a cache key")


# --- eligibility ---------------------------------------------------------------------------------


def semantic_obstacle(request: Request, embed: _Window | None, count: Callable[[str], int]) -> str:
    """Why this request takes exact repeats only; "" if similar questions may answer it."""
    if request.kind is Kind.EMBED:
        return "embeddings are not answers"
    if embed is None:
        return "no embedder is loaded"
    if request.tools or any(message.role == "tool" or message.tool_calls for message in request.messages):
        return "the turn uses tools"
    if any(message.images for message in request.messages):
        return "the turn holds images"
    if request.raw or request.suffix:
        return "a raw or fill-in prompt has no question to compare"
    if not request.messages or request.messages[-1].role != "user":
        return "the last message is not the user's"
    question = request.messages[-1].content
    if not question.strip():
        return "the question is empty"
    if _is_state(question):
        return "the question is structured data"
    # A token is one character or more, so short texts need no count.
    if len(question) > embed.max_tokens and count(question) > embed.max_tokens:
        return f"the question is longer than the embedder's window ({embed.max_tokens} tokens)"
    return ""


def comparable(question: str) -> str:
    """The question as it should be embedded: without its case, punctuation and courtesy."""
    return " ".join(read(question).skeleton)


def _is_state(text: str) -> bool:
    """A message that is a JSON object or array: every value in it matters to the letter."""
    text = text.strip()
    return (text[0], text[-1]) in {("{", "}"), ("[", "]")}


# --- entries -------------------------------------------------------------------------------------


@dataclass(slots=True)
class CacheEntry:
    """A whole answer and what it answered."""

    key: str
    partition: str
    agent: str  # who asked first
    group: str  # answers never cross groups (it is part of both keys)
    model: str
    question: str  # the last user message: for the guards and the audit
    text: str
    thinking: str
    done_reason: str
    prompt_tokens: int
    output_tokens: int
    embedding: Vector | None  # of the question, unit length; None = exact repeats only
    stored_at: float  # wall-clock seconds
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer found. `verdict` is the guards' word on a semantic hit, for the audit."""

    entry: CacheEntry
    kind: str  # exact | semantic
    similarity: float  # cosine; 1.0 for an exact hit
    age_s: float
    verdict: Verdict | None = None

    @property
    def reason(self) -> str:
        """One sentence for the request's record."""
        if self.verdict is None:
            return f"the same request was answered {self.age_s:.0f} s ago"
        return f"a question {self.similarity:.3f} similar was answered {self.age_s:.0f} s ago; {self.verdict.reason}"

    def values(self) -> dict[str, Any]:
        """The figures behind `reason`, JSON-ready."""
        values: dict[str, Any] = {
            "key": self.entry.key, "agent": self.entry.agent, "similarity": round(self.similarity, 4),
            "age_s": round(self.age_s, 1), "hits": self.entry.hits,
        }  # fmt: skip
        if self.verdict is not None:
            values |= {
                "cached_question": self.entry.question,
                "guard": self.verdict.guard,
                "verdict": self.verdict.reason,
            }
        return values


@dataclass(frozen=True, slots=True)
class Candidate:
    """A neighbour and what the guards said of it."""

    entry: CacheEntry
    similarity: float
    verdict: Verdict


def storable(entry: CacheEntry) -> bool:
    """Only whole answers are kept: not truncated or failed ones, not empty ones."""
    return entry.done_reason == "stop" and bool(entry.text.strip())


# --- the cache -----------------------------------------------------------------------------------


class ResponseCache:
    """Entries by key, and their questions' vectors by partition. One thread at a time."""

    def __init__(self, max_entries: int, ttl_s: float) -> None:
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._entries: OrderedDict[str, CacheEntry] = OrderedDict()  # least recently used first
        self._partitions: dict[str, _Neighbours] = {}
        self._readings: dict[str, Reading] = {}  # of the questions that have vectors

    def __len__(self) -> int:
        return len(self._entries)

    def get_exact(self, key: str, now: float) -> Hit | None:
        """The answer to the same request, or None. Counts as use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._expired(entry, now):
            self._drop(key)
            return None
        return self._hit(entry, "exact", 1.0, now, None)

    def get_semantic(
        self,
        partition: str,
        question: str,
        embedding: Vector,
        mode: CacheMode,
        now: float,
        *,
        floor_light: float,
        floor_strict: float,
    ) -> Hit | None:
        """The answer to a similar question that the guards of `mode` allow, the most similar first; or None."""
        floor = {CacheMode.LIGHT: floor_light, CacheMode.STRICT: floor_strict}.get(mode)
        if floor is None:
            return None
        for candidate in self._candidates(partition, question, embedding, mode, now, floor):
            if candidate.verdict.allowed:
                return self._hit(candidate.entry, "semantic", candidate.similarity, now, candidate.verdict)
        return None

    def candidates(
        self, partition: str, question: str, embedding: Vector, mode: CacheMode, now: float, floor: float
    ) -> tuple[Candidate, ...]:
        """The nearest neighbours above `floor` with the guards' verdicts, for inspection; counts as no use."""
        return tuple(self._candidates(partition, question, embedding, mode, now, floor))

    def put(self, entry: CacheEntry, now: float) -> list[str]:
        """Keep an answer; the keys pushed out for it. What is not `storable`, or too old, is not kept."""
        if self.max_entries <= 0 or not storable(entry) or self._expired(entry, now):
            return []
        self._drop(entry.key)
        self._entries[entry.key] = entry
        if entry.embedding is not None:
            size = len(entry.embedding)
            neighbours = self._partitions.get(entry.partition)
            if neighbours is None or neighbours.size != size:  # another embedder: its vectors cannot be compared
                neighbours = self._partitions[entry.partition] = _Neighbours(size)
            neighbours.add(entry.key, entry.embedding)
            self._readings[entry.key] = read(entry.question)
        return self._shrink()

    def invalidate(
        self,
        *,
        key: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        group: str | None = None,
        all: bool = False,
    ) -> list[str]:
        """Forget the entries that match every condition given (or `all`); their keys. No condition matches nothing."""
        if not all and key is None and agent is None and model is None and group is None:
            return []
        entries = self._entries.values() if key is None else filter(None, [self._entries.get(key)])
        keys = [
            entry.key
            for entry in entries
            if (agent is None or entry.agent == agent)
            and (model is None or entry.model == model)
            and (group is None or entry.group == group)
        ]
        for gone in keys:
            self._drop(gone)
        return keys

    def expire(self, now: float) -> list[str]:
        """Drop everything past its age; the keys. Look-ups refuse old entries anyway, this frees their memory."""
        keys = [entry.key for entry in self._entries.values() if self._expired(entry, now)]
        for key in keys:
            self._drop(key)
        return keys

    def resize(self, max_entries: int, ttl_s: float) -> list[str]:
        """Take new bounds at once; the keys pushed out."""
        self.max_entries, self.ttl_s = max_entries, ttl_s
        return self._shrink()

    def entries(self) -> tuple[CacheEntry, ...]:
        """All entries, least recently used first: putting them in this order into a new cache restores it."""
        return tuple(self._entries.values())

    def _candidates(
        self, partition: str, question: str, embedding: Vector, mode: CacheMode, now: float, floor: float
    ) -> Iterable[Candidate]:
        neighbours = self._partitions.get(partition)
        if neighbours is None or neighbours.size != len(embedding):
            return
        asked: Reading | None = None
        for key, similarity in neighbours.nearest(embedding, NEIGHBOURS, floor):
            entry = self._entries[key]
            if self._expired(entry, now):
                continue
            asked = asked or read(question)
            yield Candidate(entry, similarity, compare(self._readings[key], asked, mode))

    def _hit(self, entry: CacheEntry, kind: str, similarity: float, now: float, verdict: Verdict | None) -> Hit:
        self._entries.move_to_end(entry.key)
        entry.hits += 1
        return Hit(entry, kind, similarity, max(now - entry.stored_at, 0.0), verdict)

    def _expired(self, entry: CacheEntry, now: float) -> bool:
        return now - entry.stored_at > self.ttl_s

    def _shrink(self) -> list[str]:
        gone = []
        while len(self._entries) > max(self.max_entries, 0):
            key = next(iter(self._entries))
            self._drop(key)
            gone.append(key)
        return gone

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        self._readings.pop(key, None)
        if entry is None:
            return
        neighbours = self._partitions.get(entry.partition)
        if neighbours is not None:
            neighbours.remove(key)
            if not neighbours.keys:
                del self._partitions[entry.partition]


class _Neighbours:
    """The unit vectors of one partition in one matrix that grows by doubling; removal swaps the last row in."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.keys: list[str] = []
        self._rows: dict[str, int] = {}
        self._matrix = np.empty((1, size), dtype=np.float32)

    def add(self, key: str, vector: Vector) -> None:
        if len(self.keys) == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
        self._matrix[len(self.keys)] = vector
        self._rows[key] = len(self.keys)
        self.keys.append(key)

    def remove(self, key: str) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = self.keys.pop()
        if last != key:
            self.keys[row] = last
            self._rows[last] = row
            self._matrix[row] = self._matrix[len(self.keys)]
        if len(self._matrix) > 8 and len(self.keys) < len(self._matrix) // 4:
            self._matrix = self._matrix[: len(self._matrix) // 2].copy()

    def nearest(self, vector: Vector, count: int, floor: float) -> list[tuple[str, float]]:
        """Up to `count` (key, cosine) at or above `floor`, the most similar first."""
        # Row by row on one thread: BLAS's threaded product is faster alone (0.2 ms) but waits 24 ms for its second
        # thread when both cores are busy, which is the normal state here.
        similarities = np.vecdot(self._matrix[: len(self.keys)], vector)
        if len(similarities) > count:
            best = np.argpartition(similarities, -count)[-count:]
        else:
            best = np.arange(len(similarities))
        best = best[np.argsort(-similarities[best], kind="stable")]
        return [(self.keys[row], float(similarities[row])) for row in best if similarities[row] >= floor]
