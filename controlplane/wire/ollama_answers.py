"""Answers of Ollama's protocol: whole ones, the lines of a stream, and the model lists.

Rule: durations are nanoseconds; a stream ends with a `done: true` line, or with an `error` line and no other.
What does not change from token to token is rendered once.
Must not know: requests, HTTP.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.wire.errors import Problem
from controlplane.wire.names import aliases, shown, tagged
from controlplane.wire.openai_answers import fitted
from optimizer.core.events import Resident
from optimizer.core.request import AUTO
from optimizer.core.tiers import Catalogue, ModelSpec
from optimizer.ports import Completed, Delta, ModelInfo, Started, Waiting

NDJSON = b"application/x-ndjson"
_NEVER = "9999-12-31T23:59:59Z"  # residency ends when the scheduler says so, not at a time
_MIB = 1024 * 1024


def now() -> str:
    """UTC, as Ollama writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def _tool_calls(calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rendered = []
    for call in calls:
        one: dict[str, Any] = {"function": {"name": call["name"], "arguments": call.get("arguments", {})}}
        rendered.append({"id": call["id"], **one} if call.get("id") else one)
    return rendered


def _figures(completed: Completed) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": completed.done_reason,
        "total_duration": _nanoseconds(completed.total_s),
        "load_duration": _nanoseconds(completed.load_s),
        "prompt_eval_count": completed.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(completed.prefill_s),
        "eval_count": completed.output_tokens,
        "eval_duration": _nanoseconds(completed.decode_s),
    }


def _content(chat: bool, item: Delta | Completed) -> dict[str, Any]:
    """The part of an answer that holds text: `message` on /api/chat, `response` on /api/generate."""
    extra: dict[str, Any] = {}
    if item.thinking:
        extra["thinking"] = item.thinking
    if item.tool_calls:
        extra["tool_calls"] = _tool_calls(item.tool_calls)
    if chat:
        return {"message": {"role": "assistant", "content": item.text, **extra}}
    return {"response": item.text, **extra}


def answer(chat: bool, asked: str, started: Started, completed: Completed) -> bytes:
    """The body of an unstreamed /api/chat or /api/generate."""
    head = {"model": shown(asked, started.model), "created_at": now()}
    return json.dumps({**head, **_content(chat, completed), **_figures(completed)}).encode()


def idle_answer(chat: bool, asked: str, unload: bool) -> bytes:
    """The answer to empty messages: nothing is generated, nothing is loaded or unloaded."""
    reason = "unload" if unload else "load"
    body = {"model": asked, "created_at": now(), **_content(chat, Delta()), "done_reason": reason, "done": True}
    return json.dumps(body).encode()


def embed_answer(asked: str, started: Started, completed: Completed, dimensions: int | None) -> bytes:
    """The body of /api/embed, rendered row by row (see openai_answers.embeddings_answer)."""
    rows = ",".join(json.dumps(list(fitted(vector, dimensions))) for vector in completed.vectors)
    rest = {
        "model": shown(asked, started.model),
        "total_duration": _nanoseconds(completed.total_s),
        "load_duration": _nanoseconds(completed.load_s),
        "prompt_eval_count": completed.prompt_tokens,
    }
    return f'{{"embeddings":[{rows}],{json.dumps(rest)[1:]}'.encode()


class Lines:
    """The stream of /api/chat or /api/generate."""

    content_type = NDJSON

    def __init__(self, chat: bool, asked: str) -> None:
        self._chat = chat
        self._asked = asked
        self._head = self._head_for(asked)
        self._spoke = False

    @staticmethod
    def _head_for(model: str) -> str:
        return f'{{"model":{json.dumps(model)},"created_at":"'

    def _text_line(self, text: str) -> bytes:
        value = json.dumps(text)
        part = f'"message":{{"role":"assistant","content":{value}}}' if self._chat else f'"response":{value}'
        return f'{self._head}{now()}",{part},"done":false}}\n'.encode()

    def _line(self, item: Delta | Completed, rest: Mapping[str, Any]) -> bytes:
        body = json.dumps({**_content(self._chat, item), **rest}, separators=(",", ":"))
        return f'{self._head}{now()}",{body[1:]}\n'.encode()

    def waiting(self, waiting: Waiting | None) -> bytes:
        """NDJSON has no comments: an empty piece keeps the connection alive."""
        return self._text_line("")

    def started(self, started: Started) -> bytes:
        self._head = self._head_for(shown(self._asked, started.model))
        return b""

    def delta(self, item: Delta) -> bytes:
        self._spoke = True
        if item.thinking or item.tool_calls:
            return self._line(item, {"done": False})
        return self._text_line(item.text) if item.text else b""

    def completed(self, completed: Completed) -> bytes:
        body = b""
        if not self._spoke and (completed.text or completed.thinking or completed.tool_calls):
            body = self.delta(Delta(completed.text, completed.thinking, completed.tool_calls))
        return body + self._line(Delta(), _figures(completed))

    def failed(self, problem: Problem) -> bytes:
        return problem.ollama() + b"\n"


# --- model lists -------------------------------------------------------------------------------


def _details(info: ModelInfo, parent: str = "") -> dict[str, Any]:
    return {
        "parent_model": parent,
        "format": "gguf",
        "family": info.family,
        "families": [info.family] if info.family else [],
        "parameter_size": info.parameter_size,
        "quantization_level": info.quantization,
    }


def by_name(infos: Sequence[ModelInfo]) -> dict[str, ModelInfo]:
    """Models on disk by their tagged name."""
    return {tagged(info.name): info for info in infos}


def _entry(name: str, info: ModelInfo, parent: str = "") -> dict[str, Any]:
    return {
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": info.modified_at or "1970-01-01T00:00:00Z",
        "size": round(info.size_mb * _MIB),
        "digest": info.digest,
        "details": _details(info, parent),
    }


def tags(catalogue: Catalogue, infos: Sequence[ModelInfo]) -> bytes:
    """The body of /api/tags: served models, then the aliases with the model behind them as parent."""
    known = by_name(infos)
    rows = [_entry(name, known.get(tagged(name), ModelInfo(name))) for name in catalogue.models]
    for alias in aliases(catalogue):
        model = catalogue.tiers[alias].model if alias in catalogue.tiers else ""
        rows.append(_entry(alias, known.get(tagged(model), ModelInfo(alias)) if model else ModelInfo(alias), model))
    return json.dumps({"models": rows}).encode()


def running(catalogue: Catalogue, infos: Sequence[ModelInfo], residents: Sequence[Resident]) -> bytes:
    """The body of /api/ps: models in memory, as measured."""
    known = by_name(infos)
    rows = []
    for resident in residents:
        info = known.get(tagged(resident.model), ModelInfo(resident.model))
        spec = catalogue.models.get(resident.model)
        row = {
            "name": tagged(resident.model),
            "model": tagged(resident.model),
            "size": round(resident.footprint_mb * _MIB),
            "digest": info.digest,
            "details": _details(info),
            "expires_at": _NEVER,
            "size_vram": round(resident.vram_mb * _MIB),
            "context_length": spec.context_window if spec else info.context_length,
        }
        rows.append(row)
    return json.dumps({"models": rows}).encode()


def _capabilities(spec: ModelSpec, info: ModelInfo) -> list[str]:
    declared = {
        "completion": True,
        "tools": spec.supports_tools,
        "thinking": spec.supports_thinking,
        "vision": spec.supports_images,
        "embedding": spec.embeds,
    }
    return [name for name, has in declared.items() if has or name in info.capabilities]


def show(wanted: str, catalogue: Catalogue, infos: Sequence[ModelInfo]) -> bytes:
    """The body of /api/show. An alias shows the model behind it; `auto` what the strongest tier can do."""
    tier = "opus" if wanted == AUTO and "opus" in catalogue.tiers else wanted
    spec = catalogue.model_of(tier) if tier in catalogue.tiers else catalogue.models.get(tier)
    if spec is None:  # auto, and no tiers at all
        spec = next(iter(catalogue.models.values()))
    info = by_name(infos).get(tagged(spec.name), ModelInfo(spec.name))
    family = info.family or "unknown"
    parent = spec.name if wanted != spec.name else ""
    body = {
        "license": info.license,
        "modelfile": "",
        "parameters": "",
        "template": info.template,
        "details": _details(info, parent),
        "model_info": {"general.architecture": family, f"{family}.context_length": spec.context_window},
        "capabilities": _capabilities(spec, info),
        "modified_at": info.modified_at or "1970-01-01T00:00:00Z",
    }
    return json.dumps(body).encode()
