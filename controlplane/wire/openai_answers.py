"""Answers of the OpenAI protocol: whole ones, and the chunks of a stream.

Rule: one id and one `created` per answer; the role comes in the first chunk, `finish_reason` once, usage only if
asked, `[DONE]` last. What does not change from token to token is rendered once.
Must not know: requests, HTTP.
"""

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from controlplane.wire.errors import Problem
from controlplane.wire.names import shown
from controlplane.wire.openai_requests import arguments_text
from optimizer.ports import Completed, Delta, Started, Waiting

SSE = b"text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one answer repeats."""

    id: str  # chatcmpl-... | cmpl-...
    created: int  # seconds since the epoch
    asked: str  # the model as the client named it


@dataclass(frozen=True, slots=True)
class Choice:
    """A piece of one of several answers (/v1/completions with a list of prompts)."""

    index: int
    item: Delta | Completed


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    total = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total}


def _finish_reason(completed: Completed) -> str:
    if completed.tool_calls:
        return "tool_calls"
    return "length" if completed.done_reason == "length" else "stop"


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": arguments_text(call.get("arguments", {}))}
    return {"id": call.get("id") or f"call_{uuid4().hex[:24]}", "type": "function", "function": function}


def chat_answer(identity: Identity, started: Started, completed: Completed) -> bytes:
    """The body of an unstreamed /v1/chat/completions."""
    message: dict[str, Any] = {"role": "assistant", "content": completed.text, "refusal": None}
    if completed.thinking:
        message["reasoning_content"] = completed.thinking
    if completed.tool_calls:
        message["content"] = completed.text or None
        message["tool_calls"] = [_tool_call(call) for call in completed.tool_calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(completed)}
    answer = {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": shown(identity.asked, started.model),
        "choices": [choice],
        "usage": _usage(completed.prompt_tokens, completed.output_tokens),
    }
    return json.dumps(answer).encode()


def completions_answer(identity: Identity, started: Started, parts: Sequence[Completed]) -> bytes:
    """The body of an unstreamed /v1/completions, one choice per prompt."""
    choices = [
        {"index": index, "text": part.text, "logprobs": None, "finish_reason": _finish_reason(part)}
        for index, part in enumerate(parts)
    ]
    answer = {
        "id": identity.id,
        "object": "text_completion",
        "created": identity.created,
        "model": shown(identity.asked, started.model),
        "choices": choices,
        "usage": _usage(sum(p.prompt_tokens for p in parts), sum(p.output_tokens for p in parts)),
    }
    return json.dumps(answer).encode()


def fitted(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """A vector cut to its first `dimensions` and brought back to length 1, as Ollama does; longer wishes change
    nothing."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    cut = vector[:dimensions]
    norm = math.sqrt(math.fsum(x * x for x in cut))
    return [x / norm for x in cut] if norm else cut


def embeddings_answer(asked: str, started: Started, completed: Completed, in_base64: bool, size: int | None) -> bytes:
    """The body of /v1/embeddings; base64 holds little-endian float32, what the official client expects.

    Rendered row by row, so that in a thread it lets other requests go on.
    """
    rows = []
    for index, vector in enumerate(completed.vectors):
        numbers = fitted(vector, size)
        coded: Any = list(numbers)
        if in_base64:
            coded = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        rows.append(json.dumps({"object": "embedding", "index": index, "embedding": coded}))
    usage = {"prompt_tokens": completed.prompt_tokens, "total_tokens": completed.prompt_tokens}
    rest = json.dumps({"model": shown(asked, started.model), "usage": usage})
    return f'{{"object":"list","data":[{",".join(rows)}],{rest[1:]}'.encode()


def _comment(text: str) -> bytes:
    """An SSE comment: keeps the connection alive, and clients skip it."""
    return b": " + text.encode("ascii", "replace").replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"


class _Chunks:
    """What both streams share: comments while waiting, the end, a failure."""

    content_type = SSE

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        self._identity = identity
        self._include_usage = include_usage
        self._usage_null = ',"usage":null' if include_usage else ""
        self._head = ""  # everything before "choices"
        self._waited = False

    def _begin(self, kind: str, started: Started) -> bytes:
        model = json.dumps(shown(self._identity.asked, started.model))
        self._head = (
            f'data: {{"id":"{self._identity.id}","object":"{kind}","created":{self._identity.created},"model":{model},'
        )
        if not self._waited:
            return b""
        # The headers had to go out before this was known.
        tier, cache, queue_s = started.tier, started.cache, started.queue_s
        return _comment(f"started model={started.model} tier={tier} cache={cache} queue={queue_s:.1f}s")

    def waiting(self, waiting: Waiting | None) -> bytes:
        self._waited = True
        if waiting is None:
            return _comment("queued")
        return _comment(f"queued position={waiting.position} eta={waiting.eta_s:.1f}s reason={waiting.reason}")

    def failed(self, problem: Problem) -> bytes:
        return b"data: " + problem.openai() + b"\n\n"

    def _end(self, completed: Completed) -> bytes:
        if not self._include_usage:
            return DONE
        usage = json.dumps(_usage(completed.prompt_tokens, completed.output_tokens))
        return f'{self._head}"choices":[],"usage":{usage}}}\n\n'.encode() + DONE


class ChatChunks(_Chunks):
    """The stream of /v1/chat/completions."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        super().__init__(identity, include_usage)
        self._before = self._after = ""
        self._calls = 0
        self._spoke = False

    def started(self, started: Started) -> bytes:
        comment = self._begin("chat.completion.chunk", started)
        self._before = f'{self._head}"choices":[{{"index":0,"delta":'
        self._after = f',"logprobs":null,"finish_reason":null}}]{self._usage_null}}}\n\n'
        return comment + self._chunk('{"role":"assistant","content":"","refusal":null}')

    def _chunk(self, delta: str) -> bytes:
        return f"{self._before}{delta}{self._after}".encode()

    def delta(self, item: Delta) -> bytes:
        self._spoke = True
        if not item.thinking and not item.tool_calls:
            return self._chunk(f'{{"content":{json.dumps(item.text)}}}') if item.text else b""
        chunk = b""
        if item.thinking:
            chunk += self._chunk(f'{{"reasoning_content":{json.dumps(item.thinking)}}}')
        if item.text:
            chunk += self._chunk(f'{{"content":{json.dumps(item.text)}}}')
        if item.tool_calls:
            calls = [{"index": self._calls + n, **_tool_call(call)} for n, call in enumerate(item.tool_calls)]
            self._calls += len(calls)
            chunk += self._chunk(json.dumps({"tool_calls": calls}))
        return chunk

    def completed(self, completed: Completed) -> bytes:
        body = b""
        if not self._spoke:  # an engine may answer at once, without deltas
            body = self.delta(Delta(completed.text, completed.thinking, completed.tool_calls))
        reason = "tool_calls" if self._calls else _finish_reason(completed)
        last = f'{self._before}{{}},"logprobs":null,"finish_reason":"{reason}"}}]{self._usage_null}}}\n\n'
        return body + last.encode() + self._end(completed)


class TextChunks(_Chunks):
    """The stream of /v1/completions; with several prompts their choices come interleaved."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        super().__init__(identity, include_usage)
        self._spoke: set[int] = set()

    def started(self, started: Started) -> bytes:
        return self._begin("text_completion", started)

    def _chunk(self, index: int, text: str, reason: str | None) -> bytes:
        finish = f'"{reason}"' if reason else "null"
        choice = f'{{"index":{index},"text":{json.dumps(text)},"logprobs":null,"finish_reason":{finish}}}'
        return f'{self._head}"choices":[{choice}]{self._usage_null}}}\n\n'.encode()

    def delta(self, piece: Choice) -> bytes:
        index, item = piece.index, piece.item
        if isinstance(item, Delta):
            self._spoke.add(index)
            return self._chunk(index, item.text, None) if item.text else b""
        text = "" if index in self._spoke else item.text
        return self._chunk(index, text, _finish_reason(item))

    def completed(self, completed: Completed) -> bytes:
        return self._end(completed)
