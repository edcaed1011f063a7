"""The automatic check of an answer: what is plainly bad without reading it for sense.

Rule: False only where the text itself proves it (empty, cut off, refused, not the JSON that was asked for, caught in
a loop); None otherwise, for "no visible fault" is not "good". Callers' feedback says what is good.
Must not know: who answered, or what is learned from it.
"""

import json
import re
from typing import Any

REFUSAL_CHARACTERS = 400  # a longer answer that starts with regret usually goes on to help
LOOP_LINES = 8  # the same line this often in a row at the end: the model is caught in it
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_UNABLE = r"(?:i|we) (?:can ?not|can['’]t|am unable to|am not able to|won['’]t|will not)"
_REGRET = r"(?:i['’]?m|i am|we are)? ?(?:very |really |so )?sorry|i apologi[sz]e|unfortunately"
_AS_AN_AI = r"as an ai(?: language)?(?: model| assistant)?"
_REFUSAL = re.compile(  # regret and then inability, or the bare inability to help
    rf"\A\W*(?:(?:(?:{_REGRET})\W+(?:but |however )?\W*(?:{_AS_AN_AI}\W+)?|{_AS_AN_AI}\W+){_UNABLE}|"
    rf"{_UNABLE} (?:help|assist|comply|fulfil+|support|respond))\b",
    re.IGNORECASE,
)
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def automatic(
    *, text: str, done_reason: str, tool_calls: int = 0, format: Any = None, limited: bool = False
) -> bool | None:
    """False: the answer is plainly bad. None: nothing can be said.

    `tool_calls`: how many; `format`: what was asked for (None, "json" or a JSON schema); `limited`: the caller set
    the length limit itself, so that a cut at it is what it wanted.
    """
    if tool_calls:
        return None
    plain = text.strip()
    if not plain or (done_reason == "length" and not limited):
        return False
    if format and done_reason != "length" and not _is_json(plain, format):
        return False
    if len(plain) <= REFUSAL_CHARACTERS and _REFUSAL.match(plain):
        return False
    return False if _loops(plain) else None


def _is_json(text: str, format: Any) -> bool:
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    return _fits(value, format) if isinstance(format, dict) else True


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """The schema's outermost kind and its required names; not the whole of JSON Schema."""
    kind = schema.get("type")
    wanted = _KINDS.get(kind) if isinstance(kind, str) else None
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean")):
        return False
    required = schema.get("required")
    if isinstance(value, dict) and isinstance(required, list):
        return all(name in value for name in required)
    return True


def _loops(text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-LOOP_LINES:]
    return len(last) == LOOP_LINES and len(set(last)) == 1 and any(c.isalpha() for c in last[0])
