"""Response templates: put an answer into the shape a task asked for (code, list, json).

Rule: real serialisers, never `str.format` on model output (its braces raise; DESIGN.md, fault 7). An answer
that already has the shape is left as it is, so applying a template twice changes nothing.
Must not know: who asked, or which model answered.
"""

import json
import re

from optimizer.core.errors import InvalidRequest

TEMPLATES = ("code", "list", "json")

_FENCED = re.compile(r"```[\w+.#-]*\n.*?\n?```", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def check(template: str) -> None:
    """Raises InvalidRequest for a template that does not exist."""
    if template and template not in TEMPLATES:
        raise InvalidRequest(f"template must be one of {', '.join(TEMPLATES)}", param="template")


def apply(template: str, text: str, *, language: str = "") -> str:
    """`text` in the shape of `template`; "" returns it unchanged."""
    if template == "code":
        return _code(text, language)
    if template == "list":
        return _list(text)
    if template == "json":
        return _json(text)
    return text


def _code(text: str, language: str) -> str:
    if _FENCED.search(text):
        return text
    return f"```{language}\n{text.strip()}\n```"


def _list(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"- {_BULLET.sub('', line)}" for line in lines)


def _json(text: str) -> str:
    """{"status": ..., "data": ...}: the model's own JSON becomes the data, other text a string."""
    fenced = _FENCED.search(text)
    body = fenced.group(0).split("\n", 1)[1].rsplit("```", 1)[0] if fenced else text
    try:
        data = json.loads(body)
    except ValueError:
        data = text.strip()
    if isinstance(data, dict) and set(data) == {"status", "data"}:
        return json.dumps(data, ensure_ascii=False)
    return json.dumps({"status": "ok", "data": data}, ensure_ascii=False)
