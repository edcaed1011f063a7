"""A batch as JSON lines: each line a task, or the line of an OpenAI batch file.

Rule: all lines are good or none is taken; an error names the line.
Must not know: how a batch is stored.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from controlplane.api.schemas import TaskIn
from controlplane.durable_tasks import Line
from controlplane.wire.payload import parse_json
from optimizer.core.errors import InvalidRequest

MAX_LINE_BYTES = 1024 * 1024
MAX_NAME = 128
_URLS = ("/v1/chat/completions", "/control/v1/tasks")
# What an OpenAI body calls otherwise than a task; the rest has the same names.
_RENAMED = {"max_completion_tokens": "max_tokens"}


class BadLine(InvalidRequest):
    """A line that cannot be taken."""

    def __init__(self, number: int, message: str, field: str | None = None) -> None:
        super().__init__(f"line {number}: {message}", param=f"line {number}" + (f": {field}" if field else ""))


def read(data: bytes, most: int) -> list[Line]:
    """The tasks of a file; empty lines are passed over. Raises InvalidRequest, BadLine."""
    lines: list[Line] = []
    names: dict[str, int] = {}
    for number, text in _lines(data):
        if len(lines) == most:
            raise BadLine(number, f"a batch has at most {most} tasks; split it")
        line = _line(number, text)
        if line.custom_id in names:
            raise BadLine(number, f"its custom_id is that of line {names[line.custom_id]}", "custom_id")
        if line.custom_id:
            names[line.custom_id] = number
        lines.append(line)
    if not lines:
        raise InvalidRequest('the batch is empty; send one task per line, for example {"prompt": "..."}')
    return lines


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = number = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        if text := data[start:end].strip():
            yield number, text
        start = end + 1


def _line(number: int, text: bytes) -> Line:
    if len(text) > MAX_LINE_BYTES:
        raise BadLine(number, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        given = parse_json(text)
    except InvalidRequest as error:
        raise BadLine(number, str(error).replace("the body", "it"), error.param) from None
    if not isinstance(given, dict):
        raise BadLine(number, "it is no JSON object")
    custom_id = given.pop("custom_id", "")
    if not isinstance(custom_id, str) or len(custom_id) > MAX_NAME:
        raise BadLine(number, f"custom_id is not a string of at most {MAX_NAME} characters", "custom_id")
    body = _openai_body(number, given) if "body" in given else given
    try:
        task = TaskIn.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadLine(number, f"{field}: {first['msg']}" if field else first["msg"], field or None) from None
    if body.get("wait") or task.stream:
        raise BadLine(number, "a batch's task is never waited for, and has no stream", "wait")
    return Line(number, custom_id, task.model_dump(exclude_defaults=True, exclude={"wait"}))


def _openai_body(number: int, given: dict[str, Any]) -> dict[str, Any]:
    """The task in {"custom_id", "method", "url", "body"}."""
    unknown = sorted(set(given) - {"method", "url", "body"})
    if unknown:
        raise BadLine(number, f"{unknown[0]} is unknown beside body", unknown[0])
    if given.get("method", "POST") != "POST":
        raise BadLine(number, "method is not POST", "method")
    if given.get("url", _URLS[0]) not in _URLS:
        raise BadLine(number, f"url is not {' or '.join(_URLS)}", "url")
    if not isinstance(given["body"], dict):
        raise BadLine(number, "body is no JSON object", "body")
    body = {_RENAMED.get(name, name): value for name, value in given["body"].items()}
    if isinstance(body.get("stop"), str):
        body["stop"] = [body["stop"]]
    return body
