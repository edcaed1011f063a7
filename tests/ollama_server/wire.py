"""The test server's JSON: what a request says and what an answer's lines look like. Pure.

Answers begin with `[stub answer from MODEL to PROMPT-MARK]`, so that a test can see who answered what.
Must not know: runners, connections.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optimizer.backends import simulated_text
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Call
from tests.ollama_server.scheduler import RUNNER_OPTIONS

_WHO_ASKS = re.compile(r"agent \d+, question \d+")


def prompt_mark(prompt: str) -> str:
    """Eight hex digits that an answer to `prompt` (the last message's content) carries.

    They come from the words "agent 17, question 2" if the prompt has them, so that they survive a gateway that
    shortens prompts; else from the whole prompt.
    """
    if who := _WHO_ASKS.search(prompt):
        prompt = who[0]
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class ApiError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclass(frozen=True)
class Asked:
    """A generation request, parsed."""

    body: Mapping[str, Any]
    spec: ModelSpec
    call: Call
    began_at: float
    chat: bool

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is not False


def full(name: str) -> str:
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def runner_options(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the runner is started with: absent options are the defaults, so leaving one out differs from setting it."""
    options = body.get("options") or {}
    return {name: options.get(name, default) for name, default in RUNNER_OPTIONS.items()}


def seconds(keep_alive: Any) -> float | None:
    """Ollama's durations: a number of seconds or "5m"; negative is for ever; None = not given."""
    if keep_alive is None:
        return None
    if isinstance(keep_alive, str):
        units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
        unit = next((unit for unit in units if keep_alive.endswith(unit)), "")
        try:
            keep_alive = float(keep_alive.removesuffix(unit)) * units.get(unit, 1.0)
        except ValueError:
            raise ApiError(400, f'time: invalid duration "{keep_alive}"') from None
    return float("inf") if keep_alive < 0 else float(keep_alive)


def details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "stub",
        "families": ["stub"],
        "parameter_size": "1B",
        "quantization_level": "Q4_0",
    }


def tokens(asked: Asked) -> list[str]:
    """The whole answer; its label says who answers what."""
    if tool_call(asked):
        return ["", "", "", "", "", "", "", ""]  # a tool call takes tokens and shows no text
    tokens = simulated_text.answer(asked.call, asked.spec.tier)
    if asked.call.format:
        return tokens
    label = f"[stub answer from {asked.spec.name} to {prompt_mark(asked.call.messages[-1].content)}]".split(" ")
    return [label[0], *(" " + word for word in label[1:]), *tokens[7:]]


def thought(asked: Asked, tokens: int) -> int:
    """How many of an answer's tokens are thinking: a quarter, unless it is told not to think (Ollama's default)."""
    thinks = asked.spec.supports_thinking and asked.call.think is not False
    plain = asked.call.format or asked.body.get("raw") or tool_call(asked)
    return tokens // 4 if thinks and not plain else 0


def tool_call(asked: Asked) -> dict[str, Any] | None:
    """The first tool, called once per user turn with arguments that fit its schema."""
    if not asked.call.tools or asked.call.messages[-1].role != "user":
        return None
    function = asked.call.tools[0]["function"]
    arguments = simulated_text.instance(function.get("parameters") or {"type": "object"})
    return {"id": "call_stub", "function": {"index": 0, "name": function["name"], "arguments": arguments}}


def line(asked: Asked, text: str = "", thinking: str = "", tool_calls: list[Any] | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"model": asked.body["model"], "created_at": _now()}
    if asked.chat:
        line["message"] = {"role": "assistant", "content": text}
        target = line["message"]
    else:
        line["response"] = text
        target = line
    if thinking:
        target["thinking"] = thinking
    if tool_calls:
        target["tool_calls"] = tool_calls
    return line | {"done": False}


def last(body: Mapping[str, Any], reason: str, chat: bool) -> dict[str, Any]:
    empty = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    return {"model": body["model"], "created_at": _now(), **empty, "done": True, "done_reason": reason}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def ns(seconds: float) -> int:
    return round(seconds * 1e9)
