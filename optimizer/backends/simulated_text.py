"""What the simulated backend says: deterministic, clearly labelled text, JSON and vectors. No model ran.

Rule: the same call gives the same answer; every answer carries the word "simulated".
Must not know: time, memory, or who asks.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.core.tiers import DEFAULT, OPUS, SONNET
from optimizer.ports import Call

MEAN_TOKENS = {DEFAULT: 80, SONNET: 300, OPUS: 900}  # research/scheduling.md, lognormal
_SIGMA = 0.6  # spread of the answer lengths; ours, the research names none
_DIMENSIONS = 64
_TEXT = (
    "the plan names each step and its owner so that a reader can follow what was checked and why it holds "
    "first measure then change one thing and measure again because a guess is not a result"
)
_WORDS = _TEXT.split()


def prompt_tokens(texts: Sequence[str]) -> int:
    """A declared stand-in for a tokenizer: four characters a token and four tokens a message."""
    return sum(4 + math.ceil(len(text) / 4) for text in texts)


def answer(call: Call, tier: str) -> list[str]:
    """The tokens of the whole answer, before any limit: as many words as the prompt asks for, else drawn from it."""
    dice = _dice(call.model, str(call.options.get("seed", "")), *(m.role + m.content for m in call.messages))
    if call.format:
        return _pieces(_json(call))
    length = _wished(call) or _drawn(dice, MEAN_TOKENS.get(tier, MEAN_TOKENS[SONNET]))
    label = f"[simulated answer from {call.model}: no model ran]".split(" ")
    words = label + [dice.choice(_WORDS) for _ in range(length)]
    return [words[0], *(" " + word for word in words[1:])]


def vector(text: str) -> tuple[float, ...]:
    """A unit vector: the normalised sum of one fixed random vector per word, so shared words are similar."""
    total = [0.0] * _DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [text]:
        dice = _dice(word)
        total = [t + dice.gauss(0.0, 1.0) for t in total]
    norm = math.sqrt(sum(t * t for t in total))
    return tuple(t / norm for t in total)


def instance(schema: Mapping[str, Any]) -> Any:
    """A small value that satisfies the usual parts of a JSON schema; its strings say "simulated"."""
    return _instance(schema, schema)


def _wished(call: Call) -> int:
    """The number in "write 200 words", if the last message has one; else 0."""
    wish = re.search(r"\b(\d{1,5}) words\b", call.messages[-1].content) if call.messages else None
    return int(wish[1]) if wish else 0


def _drawn(dice: random.Random, mean: int) -> int:
    return max(1, round(dice.lognormvariate(math.log(mean) - _SIGMA**2 / 2, _SIGMA)))


def _dice(*seeds: str) -> random.Random:
    digest = hashlib.sha256("\0".join(seeds).encode("utf-8", "surrogatepass")).digest()
    return random.Random(digest)


def _json(call: Call) -> str:
    if isinstance(call.format, Mapping):
        return json.dumps(instance(call.format))
    return json.dumps({"simulated": True, "model": call.model, "answer": "no model ran"})


def _instance(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    if not isinstance(schema, Mapping) or depth > 16:
        return "simulated"
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return _instance(root.get("$defs", root.get("definitions", {})).get(name), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _instance(schema[union][0], root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: _instance(part, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        return [_instance(schema.get("items"), root, depth + 1) for _ in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return False
    return None if kind == "null" else "simulated"


def _pieces(text: str) -> list[str]:
    return [text[i : i + 4] for i in range(0, len(text), 4)]
