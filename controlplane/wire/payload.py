"""JSON as it comes from strangers: parsed within limits, then read field by field with the field's name in each error.

Rule: whatever the bytes are, the outcome is a value or an InvalidRequest that names the field; nothing that passes
can make a later stage fail (no NaN, no lone surrogate, no NUL, no number beyond 64 bits, no deep nesting).
Must not know: the two protocols' fields.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from optimizer.core.errors import InvalidRequest

MAX_DEPTH = 64  # arrays and objects inside one another; JSON schemas of real tools stay below 20
MAX_INTEGER = 2**63 - 1
# Commas and brackets in one body: what parsing costs time for. A prompt with as many is far beyond any window, and
# images have none.
MAX_SEPARATORS = 1_000_000

# Only escapes can bring a NUL or a surrogate into a string: the parser refuses raw control characters, and
# UTF-8 decoding refuses raw surrogates. Without one of these the strings need no look.
_SUSPICIOUS_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def _no_constant(name: str) -> Any:
    raise InvalidRequest(f"{name} is not valid JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidRequest(f"the number {text[:40]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) > MAX_INTEGER:
        raise InvalidRequest(f"the number {text[:40]} is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequest(f"the field '{_shown(name)}' appears twice", param=_shown(name))
            seen.add(name)
    return read


_DECODER = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, parse_int=_integer, object_pairs_hook=_unique
)


def _shown(name: str) -> str:
    """A field name from outside, fit to be repeated in an error."""
    return name[:60].encode("ascii", "replace").decode().replace("\x00", "?")


def parse_json(data: bytes) -> Any:
    """The value of a JSON text. Raises InvalidRequest."""
    brackets = data.count(b"{") + data.count(b"[")
    if brackets + data.count(b",") > MAX_SEPARATORS:
        raise InvalidRequest(f"the body has more than {MAX_SEPARATORS} commas and brackets")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    if brackets > MAX_DEPTH or _SUSPICIOUS_ESCAPE.search(data):
        _inspect(value)
    return value


def _inspect(root: Any) -> None:
    """Refuse deep nesting and characters that no store or tokenizer takes, naming the field."""
    stack: list[tuple[Any, str, int]] = [(root, "", 1)]
    while stack:
        value, path, depth = stack.pop()
        if isinstance(value, str):
            _plain(value, path)
        elif isinstance(value, dict):
            if depth > MAX_DEPTH:
                raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels", param=path[:200])
            for name, item in value.items():
                here = f"{path}.{_shown(name)}" if path else _shown(name)
                _plain(name, here)
                if isinstance(item, (str, dict, list)):
                    stack.append((item, here, depth + 1))
        elif isinstance(value, list):
            if depth > MAX_DEPTH:
                raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels", param=path[:200])
            for index, item in enumerate(value):
                if isinstance(item, (str, dict, list)):
                    stack.append((item, f"{path}[{index}]", depth + 1))


def _plain(text: str, path: str) -> None:
    if "\x00" in text:
        raise InvalidRequest(f"{path or 'the body'} contains the character \\u0000", param=path or None)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{path or 'the body'} contains half of a surrogate pair", param=path or None) from None


class Fields:
    """A JSON object read by field. Absent and null are the same; a wrong type is an InvalidRequest with the path."""

    __slots__ = ("_path", "raw")

    def __init__(self, raw: Any, path: str = "") -> None:
        if not isinstance(raw, dict):
            raise InvalidRequest(f"{path or 'the body'} must be an object", param=path or None)
        self.raw: dict[str, Any] = raw
        self._path = path

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def wrong(self, name: str, must: str) -> InvalidRequest:
        """The error for a field: "`name` must ..."."""
        path = self.path(name)
        return InvalidRequest(f"{path} must {must}", param=path)

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        value = self.raw.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "be a string")
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if not value.strip():
            raise self.wrong(name, "be given")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "be true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`, both included; None if absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, "be a number")
        if not low <= value <= high:
            raise self.wrong(name, f"be from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high` (5.0 counts as 5); None if absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise self.wrong(name, "be a whole number")
        if not low <= value <= high:
            raise self.wrong(name, f"be from {low} to {high}")
        return int(value)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of the words, or "" if absent."""
        value = self.text(name)
        if value and value not in choices:
            raise self.wrong(name, f"be one of {', '.join(choices)}")
        return value

    def items(self, name: str) -> list[Any]:
        value = self.raw.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "be a list")
        return value

    def objects(self, name: str) -> Iterator["Fields"]:
        """The items of a list, each of which must be an object."""
        for index, item in enumerate(self.items(name)):
            yield Fields(item, f"{self.path(name)}[{index}]")

    def nested(self, name: str) -> "Fields":
        """The object under a name; an empty one if absent."""
        value = self.raw.get(name)
        return Fields({} if value is None else value, self.path(name))

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A string or a list of strings, as a tuple; empty if absent."""
        value = self.raw.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "be a string or a list of strings")
        if len(value) > most:
            raise self.wrong(name, f"have at most {most} items")
        return tuple(value)
