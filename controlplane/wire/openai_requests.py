"""Bodies of the OpenAI protocol, read into Requests.

Rule: what we cannot do is refused with its field's name (400), never ignored where the answer would differ; what
cannot change an answer (user, metadata, store, ...) is ignored. Nothing is ever fetched from a URL.
Must not know: answers.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from controlplane.wire.call import Call
from controlplane.wire.options import openai_options
from controlplane.wire.payload import Fields, parse_json
from controlplane.wire.token_ids import rows_of_ids, texts_of
from optimizer.core.errors import InvalidRequest, UnsupportedFeature
from optimizer.core.request import Kind, Message, Request

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
MAX_PROMPTS = 64
MAX_EMBEDDING_INPUTS = 2048


def _refuse(fields: Fields, name: str, what: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"{fields.path(name)}: {what}", param=fields.path(name))


def _refuse_unsupported(fields: Fields) -> None:
    if (fields.integer("n", 1, 128) or 1) > 1:
        raise _refuse(fields, "n", "only one answer per request is supported; send the request again for another")
    if fields.raw.get("logprobs") not in (None, False) or fields.raw.get("top_logprobs") not in (None, 0):
        raise _refuse(fields, "logprobs", "log probabilities are not supported")
    if fields.raw.get("logit_bias"):
        raise _refuse(fields, "logit_bias", "not supported")
    if fields.raw.get("functions") or fields.raw.get("function_call"):
        raise _refuse(fields, "functions", "not supported; use tools")
    if fields.raw.get("audio") or "audio" in fields.texts("modalities", 8):
        raise _refuse(fields, "audio", "only text answers are supported")


def wants_usage(fields: Fields) -> bool:
    """stream_options.include_usage."""
    return fields.nested("stream_options").flag("include_usage")


# --- messages ----------------------------------------------------------------------------------


def _data_url(fields: Fields, url: str) -> str:
    """The base64 part of a `data:` URL of an image."""
    head, comma, data = url.partition(",")
    if not (head.lower().startswith("data:") and comma):
        raise fields.wrong("image_url", "be a data: URL (data:image/png;base64,...); nothing is fetched from elsewhere")
    if not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        raise fields.wrong("image_url", "be a base64 data: URL of an image")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise fields.wrong("image_url", "hold valid base64") from None
    return data


def _content(fields: Fields) -> tuple[str, tuple[str, ...]]:
    """A message's text and images, whether it came as a string or in parts."""
    content = fields.raw.get("content")
    if content is None or isinstance(content, str):
        return content or "", ()
    if not isinstance(content, list):
        raise fields.wrong("content", "be a string or a list of parts")
    texts: list[str] = []
    images: list[str] = []
    for part in fields.objects("content"):
        kind = part.text("type")
        if kind in ("text", "input_text"):
            texts.append(part.text("text"))
        elif kind == "refusal":
            texts.append(part.text("refusal"))
        elif kind == "image_url":
            value = part.raw.get("image_url")
            url = value if isinstance(value, str) else part.nested("image_url").text("url")
            images.append(_data_url(part, url))
        else:
            raise part.wrong("type", "be text or image_url")
    return "\n".join(texts), tuple(images)


def _arguments(function: Fields) -> Mapping[str, Any]:
    """A call's arguments: a JSON string on /v1 (an object is taken as well)."""
    raw = function.raw.get("arguments")
    if isinstance(raw, str):
        try:
            raw = parse_json(raw.encode("utf-8")) if raw.strip() else {}
        except InvalidRequest:
            raise function.wrong("arguments", "be a JSON object written as a string") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise function.wrong("arguments", "be a JSON object written as a string")
    return raw


def _tool_calls(message: Fields) -> tuple[Mapping[str, Any], ...]:
    calls = []
    for call in message.objects("tool_calls"):
        function = call.nested("function")
        name = function.required_text("name")
        calls.append({"id": call.text("id"), "name": name, "arguments": _arguments(function)})
    return tuple(calls)


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """The conversation. Raises InvalidRequest; an empty one is an error on /v1."""
    messages: list[Message] = []
    names: dict[str, str] = {}  # of the tools called so far, by call id
    for item in fields.objects("messages"):
        role = item.choice("role", tuple(_ROLES))
        if not role:
            raise item.wrong("role", "be given")
        content, images = _content(item)
        calls = _tool_calls(item)
        names.update((call["id"], call["name"]) for call in calls)
        call_id = item.text("tool_call_id")
        message = Message(
            role=_ROLES[role],
            content=content,
            tool_calls=calls,
            tool_call_id=call_id,
            tool_name=names.get(call_id, "") or item.text("name") if role == "tool" else "",
            images=images,
            thinking=item.text("reasoning_content"),
        )
        messages.append(message)
    if not messages:
        raise fields.wrong("messages", "hold at least one message")
    return tuple(messages)


# --- tools and formats -------------------------------------------------------------------------


def read_tools(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """The tools in either protocol's body, checked for what a backend relies on."""
    tools = []
    for tool in fields.objects("tools"):
        if tool.text("type", "function") != "function":
            raise tool.wrong("type", "be function")
        function = tool.nested("function")
        function.required_text("name")
        function.text("description")
        function.nested("parameters")
        tools.append({**tool.raw, "type": "function"})
    return tuple(tools)


def _chosen_tools(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """Tools after tool_choice: none offers none, a named one offers that one; `required` cannot be forced on a
    local model and offers all, as auto does."""
    tools = read_tools(fields)
    choice = fields.raw.get("tool_choice")
    if choice is None or isinstance(choice, str):
        word = fields.choice("tool_choice", ("none", "auto", "required"))
        if word == "required" and not tools:
            raise fields.wrong("tool_choice", "come with tools")
        return () if word == "none" else tools
    name = fields.nested("tool_choice").nested("function").required_text("name")
    named = tuple(tool for tool in tools if tool["function"]["name"] == name)
    if not named:
        raise fields.wrong("tool_choice", "name one of the tools")
    return named


def _format(fields: Fields) -> Any:
    if not fields.has("response_format"):
        return None
    wish = fields.nested("response_format")
    kind = wish.choice("type", ("text", "json_object", "json_schema"))
    if not kind:
        raise wish.wrong("type", "be given")
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        described = wish.nested("json_schema")
        if not described.has("schema"):
            raise described.wrong("schema", "be given")
        return described.nested("schema").raw
    return None


# --- requests ----------------------------------------------------------------------------------


def read_chat(call: Call, fields: Fields) -> Request:
    """The body of /v1/chat/completions."""
    wanted = call.wanted(fields.required_text("model"))
    _refuse_unsupported(fields)
    effort = fields.choice("reasoning_effort", tuple(_THINK))
    return call.request(
        Kind.CHAT,
        wanted,
        read_messages(fields),
        options=openai_options(fields),
        tools=_chosen_tools(fields),
        format=_format(fields),
        think=_THINK[effort] if effort else None,
        stream=fields.flag("stream"),
        protocol="openai",
    )


def read_completions(call: Call, fields: Fields) -> tuple[Request, ...]:
    """The body of /v1/completions: one Request per prompt."""
    wanted = call.wanted(fields.required_text("model"))
    _refuse_unsupported(fields)
    if fields.flag("echo"):
        raise _refuse(fields, "echo", "not supported")
    if (fields.integer("best_of", 1, 128) or 1) > 1:
        raise _refuse(fields, "best_of", "not supported")
    raw = fields.raw.get("prompt")
    if isinstance(raw, list) and raw and not any(isinstance(item, str) for item in raw):
        raise fields.wrong("prompt", "be text; token ids are not supported")
    prompts = fields.texts("prompt", MAX_PROMPTS)
    if not prompts or not all(prompts):
        raise fields.wrong("prompt", "be given and not be empty")
    options = openai_options(fields)
    return tuple(
        call.request(
            Kind.GENERATE,
            wanted,
            (Message("user", prompt),),
            part=index if len(prompts) > 1 else None,
            options=options,
            suffix=fields.text("suffix"),
            format=_format(fields),
            stream=fields.flag("stream"),
            protocol="openai",
        )
        for index, prompt in enumerate(prompts)
    )


async def read_embeddings(call: Call, fields: Fields) -> Request:
    """The body of /v1/embeddings: text, or token ids that can be turned back into text."""
    wanted = call.wanted(fields.required_text("model"))
    fields.choice("encoding_format", ("float", "base64"))
    fields.integer("dimensions", 1, 1_000_000)
    rows = rows_of_ids(fields.raw.get("input"))
    if rows is not None:
        fields = Fields({"input": await texts_of(rows[: MAX_EMBEDDING_INPUTS + 1])})
    inputs = fields.texts("input", MAX_EMBEDDING_INPUTS)
    if not inputs or not all(inputs):
        raise fields.wrong("input", "be given and hold no empty string")
    return call.request(Kind.EMBED, wanted, inputs=inputs, protocol="openai")


def arguments_text(arguments: Any) -> str:
    """A call's arguments as /v1 writes them: a JSON string."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
