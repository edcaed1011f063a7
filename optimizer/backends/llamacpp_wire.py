"""Translation between our calls and llama.cpp's server: requests out, streamed lines in.

Rule: pure; values in, values out. Option names are Ollama's on our side, llama.cpp's on the other.
Must not know: processes, connections, which slot is free.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.core.errors import (
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    NarrowgaugeError,
    UnsupportedFeature,
)
from optimizer.core.request import Message
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Call, Delta, Finished

CHAT_PATH, RAW_PATH, EMBED_PATH = "/v1/chat/completions", "/completion", "/v1/embeddings"

# Options that both sides spell alike. Those that shape a load (num_ctx, num_batch, num_thread, ...) are
# pinned per model and therefore not here.
_SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)
_RENAMED = {"typical_p": "typ_p", "num_keep": "n_keep"}


def check(call: Call, spec: ModelSpec) -> None:
    """Raises UnsupportedFeature for what this engine or the model cannot do."""
    if call.tools and not spec.supports_tools:
        raise UnsupportedFeature(f"{spec.name} does not support tools", param="tools")
    if call.think and not spec.supports_thinking:
        raise UnsupportedFeature(f"{spec.name} does not support thinking", param="think")
    if call.suffix:
        raise UnsupportedFeature(f"{spec.name} does not support insert (a suffix)", param="suffix")
    if any(message.images for message in call.messages):
        raise UnsupportedFeature(f"{spec.name} does not support images", param="images")


def request(call: Call, stops: Sequence[str], slot: int | None) -> tuple[str, bytes]:
    """Path and JSON body of a streamed generation. `stops` end it besides the caller's own."""
    options = call.options
    body: dict[str, Any] = {name: options[name] for name in _SAME_NAME if options.get(name) is not None}
    body |= {theirs: options[ours] for ours, theirs in _RENAMED.items() if options.get(ours) is not None}
    stop = options.get("stop") or []
    limit = options.get("num_predict")
    limit = -1 if limit is None or limit < 0 else limit  # Ollama's -2 (fill the window) is where -1 ends too
    # The server looks whether we are still there only when it has something to say; with progress reports it
    # does so after every step of a long prompt, and a cancelled request stops within two steps.
    body |= {"stream": True, "return_progress": True, "cache_prompt": True}
    if slot is not None:
        body["id_slot"] = slot
    if call.raw:
        body |= {
            "prompt": call.messages[-1].content if call.messages else "",
            "n_predict": limit,
            "stop": [stop] if isinstance(stop, str) else list(stop),
        }
        if call.format is not None:
            body["json_schema"] = {"type": "object"} if call.format == "json" else call.format
        return RAW_PATH, encoded(body)
    body |= {
        "messages": [_message(message) for message in call.messages],
        "max_tokens": limit,
        "stop": [*([stop] if isinstance(stop, str) else stop), *stops],
        "stream_options": {"include_usage": True},
    }
    if call.tools:
        body["tools"] = list(call.tools)
    if call.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif call.format is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": call.format}}
    return CHAT_PATH, encoded(body)


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON as UTF-8. A lone surrogate, which no tokenizer can read, becomes a question mark."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _message(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.get("id", ""),
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_name:
        out["name"] = message.tool_name
    return out


def refusal(status: int, content: bytes) -> NarrowgaugeError:
    """The error that an answer other than 200 stands for."""
    try:
        error = json.loads(content)["error"]
        kind, text = str(error.get("type", "")), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, text = "", content[:200].decode(errors="replace")
    if kind == "exceed_context_size_error":
        return ContextOverflow(f"the prompt does not fit the model's window: {text}", param="messages")
    if kind == "not_supported_error":
        return UnsupportedFeature(text)
    if status == 400:
        return InvalidRequest(text)
    return GenerationFailed(f"llama.cpp answered {status}: {text}")


class Reader:
    """Turns the lines of one streamed answer into deltas and the final count."""

    def __init__(self, *, strip_leading: bool = False) -> None:
        self._strip = strip_leading
        self._done_reason = "stop"
        self._tool_calls: dict[int, dict[str, str]] = {}
        self.finished = False

    def feed(self, line: str) -> list[Delta | Finished]:
        """Items that a line completes. Raises what the server reports mid-stream as an error."""
        kind, _, data = line.partition(":")
        data = data.strip()
        if kind not in ("data", "error") or not data or data == "[DONE]":
            return []
        event = json.loads(data)
        if kind == "error" or "error" in event:
            raise refusal(500, json.dumps(event if "error" in event else {"error": event}).encode())
        return self._chat(event) if "choices" in event else self._raw(event)

    def _chat(self, event: Mapping[str, Any]) -> list[Delta | Finished]:
        items: list[Delta | Finished] = []
        for choice in event["choices"]:
            delta = choice.get("delta") or {}
            items += self._delta(delta.get("content") or "", delta.get("reasoning_content") or "")
            for piece in delta.get("tool_calls") or ():
                call = self._tool_calls.setdefault(piece.get("index", 0), {"id": "", "name": "", "arguments": ""})
                function = piece.get("function") or {}
                call["id"] += piece.get("id") or ""
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
            if choice.get("finish_reason"):
                self._done_reason = "length" if choice["finish_reason"] == "length" else "stop"
        if "usage" in event:
            if self._tool_calls:
                items.append(Delta(tool_calls=tuple(_whole(call) for call in self._tool_calls.values())))
            usage = event["usage"]
            items.append(self._finish(usage["prompt_tokens"], usage["completion_tokens"], event.get("timings") or {}))
        return items

    def _raw(self, event: Mapping[str, Any]) -> list[Delta | Finished]:
        items = self._delta(event.get("content") or "", "")
        if event.get("stop"):
            self._done_reason = "length" if event.get("stop_type") == "limit" else "stop"
            timings = event.get("timings") or {}
            items.append(self._finish(event["tokens_evaluated"], event["tokens_predicted"], timings))
        return items

    def _delta(self, text: str, thinking: str) -> list[Delta | Finished]:
        if self._strip and text:
            text = text.lstrip()
            self._strip = not text
        return [Delta(text=text, thinking=thinking)] if text or thinking else []

    def _finish(self, prompt_tokens: int, output_tokens: int, timings: Mapping[str, Any]) -> Finished:
        self.finished = True
        return Finished(
            done_reason=self._done_reason,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            prefill_s=timings.get("prompt_ms", 0.0) / 1000,
            decode_s=timings.get("predicted_ms", 0.0) / 1000,
        )


def _whole(call: Mapping[str, str]) -> dict[str, Any]:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError as error:
        raise GenerationFailed(f"the model's call of {call['name']} is not valid JSON") from error
    return {"id": call["id"], "name": call["name"], "arguments": arguments}
