"""Ollama's JSON, both ways: our calls into its bodies, its lines and errors into our values and error tree.

Rule: pure translation. Only options that do not concern the runner leave from a call: a runner option that
differed from the pinned profile would reload the model (research/peers.md, `needsReload`).
Must not know: connections, or which request is whose.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optimizer.core.errors import (
    BackendError,
    BackendUnavailable,
    GenerationFailed,
    ModelFileMissing,
    UnsupportedFeature,
)
from optimizer.core.events import Resident
from optimizer.core.request import Message
from optimizer.ports import Call, Delta, Embedded, Finished, ModelInfo

MB = 2**20  # Ollama counts bytes; memory is spoken of in MB of 2**20 bytes

# What Ollama starts a runner with (api.Runner); everything else is sampling and free to vary.
_RUNNER_OPTIONS = (
    "num_ctx num_batch num_gpu main_gpu use_mmap num_thread low_vram use_mlock numa f16_kv vocab_only "
    "logits_all embedding_only num_gqa rope_frequency_base rope_frequency_scale draft_num_predict"
)
RUNNER_OPTIONS = frozenset(_RUNNER_OPTIONS.split())


def short_name(name: str) -> str:
    """The name people write: `tinyllama` for `tinyllama:latest`."""
    return name.removesuffix(":latest")


def call_body(call: Call, profile: Mapping[str, Any], keep_alive: float | str) -> tuple[str, dict[str, Any]]:
    """The route and the body of a streamed generation.

    /api/chat, except for a raw prompt or a fill-in-the-middle, which only /api/generate can do.
    """
    body: dict[str, Any] = {
        "model": call.model,
        "stream": True,
        "keep_alive": keep_alive,
        "options": {**sampling(call.options), **profile},
    }
    if call.format:
        body["format"] = call.format
    if call.think is not None:
        body["think"] = call.think
    if call.raw or call.suffix:
        system = "\n\n".join(m.content for m in call.messages if m.role == "system")
        body["prompt"] = "\n\n".join(m.content for m in call.messages if m.role != "system")
        images = [image for m in call.messages for image in m.images]
        extras = {"system": system, "suffix": call.suffix, "raw": call.raw, "images": images}
        body.update({name: value for name, value in extras.items() if value})
        return "/api/generate", body
    body["messages"] = messages(call.messages)
    if call.tools:
        body["tools"] = list(call.tools)
    return "/api/chat", body


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may vary from call to call."""
    return {name: value for name, value in options.items() if name not in RUNNER_OPTIONS}


def messages(turns: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages in Ollama's shape: arguments are objects, a tool's answer names its tool."""
    tools_by_id: dict[str, str] = {}
    result = []
    for turn in turns:
        one: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.tool_calls:
            one["tool_calls"] = [
                {"id": c.get("id", ""), "function": {"name": c["name"], "arguments": c.get("arguments") or {}}}
                for c in turn.tool_calls
            ]
            tools_by_id.update({str(c.get("id", "")): str(c["name"]) for c in turn.tool_calls})
        if turn.role == "tool":
            one["tool_name"] = turn.tool_name or tools_by_id.get(turn.tool_call_id, "")
            one["tool_call_id"] = turn.tool_call_id
        if turn.images:
            one["images"] = list(turn.images)
        if turn.thinking:
            one["thinking"] = turn.thinking
        result.append({name: value for name, value in one.items() if value or name == "content"})
    return result


def items(lines: Sequence[Mapping[str, Any]]) -> list[Delta | Finished]:
    """What the lines of one read say: at most one Delta, then the Finished if it is among them.

    Raises GenerationFailed when a line is an error.
    """
    text, thinking = [], []
    tool_calls: list[Mapping[str, Any]] = []
    finished: Finished | None = None
    failure = ""
    for line in lines:
        if "error" in line:
            failure = f"Ollama broke off: {line['error']}"
            break
        message = line.get("message") or {}
        text.append(message.get("content") or line.get("response") or "")
        thinking.append(message.get("thinking") or line.get("thinking") or "")
        tool_calls += [_tool_call(one) for one in message.get("tool_calls") or ()]
        if line.get("done"):
            finished = _finished(line)
    if failure:
        raise GenerationFailed(failure)
    result: list[Delta | Finished] = []
    delta = Delta("".join(text), "".join(thinking), tuple(tool_calls))
    if delta != Delta():
        result.append(delta)
    if finished:
        result.append(finished)
    return result


def _tool_call(one: Mapping[str, Any]) -> dict[str, Any]:
    function = one.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    return {"id": one.get("id", ""), "name": function.get("name", ""), "arguments": arguments}


def _finished(line: Mapping[str, Any]) -> Finished:
    """Ollama leaves out counts that are zero, and ends a load with reasons that are none of a generation's."""
    return Finished(
        done_reason="length" if line.get("done_reason") == "length" else "stop",
        prompt_tokens=int(line.get("prompt_eval_count") or 0),
        output_tokens=int(line.get("eval_count") or 0),
        prefill_s=seconds(line.get("prompt_eval_duration")),
        decode_s=seconds(line.get("eval_duration")),
        load_s=seconds(line.get("load_duration")),
    )


def seconds(nanoseconds: Any) -> float:
    """Ollama's durations are nanoseconds; absent is 0.0."""
    return float(nanoseconds or 0) / 1e9


def resident(row: Mapping[str, Any], name: str) -> Resident:
    """A row of /api/ps; size_vram below size means that a part runs on the CPU."""
    return Resident(name, float(row.get("size") or 0) / MB, float(row.get("size_vram") or 0) / MB)


def embedded(answer: Mapping[str, Any]) -> Embedded:
    """The answer of /api/embed."""
    vectors = tuple(tuple(float(x) for x in vector) for vector in answer.get("embeddings") or ())
    return Embedded(vectors, int(answer.get("prompt_eval_count") or 0))


def model_info(tag: Mapping[str, Any], shown: Mapping[str, Any], name: str) -> ModelInfo:
    """From a row of /api/tags and the answer of /api/show (may be empty)."""
    details = {**(tag.get("details") or {}), **(shown.get("details") or {})}
    facts = shown.get("model_info") or {}
    context = facts.get(f"{facts.get('general.architecture', '')}.context_length") or 0
    return ModelInfo(
        name=name,
        size_mb=float(tag.get("size") or 0) / MB,
        digest=str(tag.get("digest") or ""),
        family=str(details.get("family") or ""),
        parameter_size=str(details.get("parameter_size") or ""),
        quantization=str(details.get("quantization_level") or ""),
        context_length=int(context),
        capabilities=tuple(str(one) for one in shown.get("capabilities") or ()),
        modified_at=str(tag.get("modified_at") or ""),
        template=str(shown.get("template") or ""),
        license=str(shown.get("license") or ""),
    )


def failure(status: int, body: bytes, model: str, kind: type[BackendError]) -> BackendError | UnsupportedFeature:
    """The error of our tree that an HTTP answer means; `kind` when it is nothing more special."""
    try:
        told = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        told = body.decode("utf-8", "replace").strip()[:200] or f"HTTP {status}"
    if status == 404 and "not found" in told:
        return ModelFileMissing(f"Ollama does not have the model '{model}': run `ollama pull {model}`")
    if status in (400, 501) and "does not support" in told:
        return UnsupportedFeature(f"{model}: {told}", param="model")
    if status == 503:
        return BackendUnavailable(f"Ollama is busy: {told}")
    return kind(f"Ollama answered {status}: {told}")
