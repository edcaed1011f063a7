"""Bodies of Ollama's protocol, read into Requests.

Rule: as in Ollama, unknown fields are ignored and null means absent; what would change the answer and cannot be
done is refused (400). `keep_alive` is read and obeyed by nobody: the scheduler owns residency.
Must not know: answers.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from controlplane.wire.call import Call
from controlplane.wire.openai_requests import read_tools
from controlplane.wire.options import ollama_options
from controlplane.wire.payload import Fields
from optimizer.core.errors import UnsupportedFeature
from optimizer.core.request import Kind, Message, Request

_ROLES = ("system", "user", "assistant", "tool")
_EFFORTS = ("low", "medium", "high", "max")
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+)|[-+]?\d+")
MAX_EMBEDDING_INPUTS = 2048


def asked_model(fields: Fields) -> str:
    """The model's name; old clients say `name`."""
    return fields.text("model") or fields.text("name") or fields.required_text("model")


def unloads(fields: Fields) -> bool:
    """True for a keep_alive of zero. Raises InvalidRequest for what is no duration."""
    value = fields.raw.get("keep_alive")
    if value is None:
        return False
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise fields.wrong("keep_alive", 'be a duration such as "5m", or seconds')
        return not any(digit in value for digit in "123456789")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fields.wrong("keep_alive", 'be a duration such as "5m", or seconds')
    return value == 0


def _refuse_unsupported(fields: Fields) -> None:
    if fields.flag("logprobs") or fields.raw.get("top_logprobs") not in (None, 0):
        raise UnsupportedFeature("log probabilities are not supported", param="logprobs")


def _format(fields: Fields) -> Any:
    value = fields.raw.get("format")
    if value in (None, ""):
        return None
    if value == "json" or isinstance(value, dict):
        return value
    raise fields.wrong("format", 'be "json" or a JSON schema')


def _think(fields: Fields) -> bool | str | None:
    value = fields.raw.get("think")
    if value is None or isinstance(value, bool):
        return value
    if value not in _EFFORTS:
        raise fields.wrong("think", f"be true, false or one of {', '.join(_EFFORTS)}")
    return "high" if value == "max" else str(value)


def _images(fields: Fields) -> tuple[str, ...]:
    images = fields.items("images")
    for index, image in enumerate(images):
        try:
            base64.b64decode(image, validate=True)
        except (TypeError, binascii.Error, ValueError):
            raise fields.wrong(f"images[{index}]", "be base64") from None
    return tuple(images)


def _tool_calls(message: Fields) -> tuple[Mapping[str, Any], ...]:
    calls = []
    for call in message.objects("tool_calls"):
        function = call.nested("function")
        name, arguments = function.required_text("name"), function.nested("arguments").raw
        calls.append({"id": call.text("id"), "name": name, "arguments": arguments})
    return tuple(calls)


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """The conversation; an empty one is allowed (load, unload)."""
    messages = []
    for item in fields.objects("messages"):
        role = item.choice("role", _ROLES)
        if not role:
            raise item.wrong("role", f"be one of {', '.join(_ROLES)}")
        message = Message(
            role=role,
            content=item.text("content"),
            tool_calls=_tool_calls(item),
            tool_call_id=item.text("tool_call_id"),
            tool_name=item.text("tool_name") or (item.text("name") if role == "tool" else ""),
            images=_images(item),
            thinking=item.text("thinking"),
        )
        messages.append(message)
    return tuple(messages)


def read_chat(call: Call, fields: Fields) -> Request:
    """The body of /api/chat."""
    wanted = call.wanted(asked_model(fields))
    _refuse_unsupported(fields)
    return call.request(
        Kind.CHAT,
        wanted,
        read_messages(fields),
        options=ollama_options(fields.nested("options")),
        tools=read_tools(fields),
        format=_format(fields),
        think=_think(fields),
        stream=fields.flag("stream", default=True),
        protocol="ollama",
    )


def read_generate(call: Call, fields: Fields) -> Request:
    """The body of /api/generate; no messages if the prompt is empty (load, unload)."""
    wanted = call.wanted(asked_model(fields))
    _refuse_unsupported(fields)
    if fields.text("template"):
        raise UnsupportedFeature("template: a request cannot replace the model's template", param="template")
    if fields.items("context"):
        raise UnsupportedFeature("context: token histories are not supported; use /api/chat", param="context")
    prompt, system, raw = fields.text("prompt"), fields.text("system"), fields.flag("raw")
    messages: list[Message] = []
    if images := _images(fields):
        messages.append(Message("user", prompt, images=images))
    elif prompt:
        messages.append(Message("user", prompt))
    if messages and system and not raw:  # as in Ollama, a raw prompt stands alone
        messages.insert(0, Message("system", system))
    return call.request(
        Kind.GENERATE,
        wanted,
        messages,
        options=ollama_options(fields.nested("options")),
        format=_format(fields),
        think=_think(fields),
        suffix=fields.text("suffix"),
        raw=raw,
        stream=fields.flag("stream", default=True),
        protocol="ollama",
    )


def read_embed(call: Call, fields: Fields, name: str) -> Request:
    """The body of /api/embed (`name` is "input") or of the older /api/embeddings ("prompt")."""
    wanted = call.wanted(asked_model(fields))
    fields.flag("truncate")
    unloads(fields)
    inputs = fields.texts(name, MAX_EMBEDDING_INPUTS) if name == "input" else (fields.text(name),)
    options = ollama_options(fields.nested("options"))
    given = inputs if any(inputs) else ()
    if given and not all(given):
        raise fields.wrong(name, "hold no empty string")
    return call.request(Kind.EMBED, wanted, inputs=given, options=options, protocol="ollama")
