"""Edits of real prompts whose effect on the meaning is known, to test a cache's guards with prompts nobody labelled.

`harmful` changes what is asked (a number, a unit, a name, a direction, a negation), `harmless` only how it is typed.
Rule: the word lists here are independent of the guards' own tables, or the test would ask the guards about themselves.
Must not know: the guards, the cache, embeddings.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

Edit = Callable[[str, random.Random], str | None]

_OPPOSITES = [
    pair.split()
    for pair in """
increase decrease;enable disable;before after;above below;first last;open close;start stop;add remove;upload download;
maximum minimum;largest smallest;highest lowest;more less;always never;all none;left right;up down;hot cold;fast slow;
old new;import export;encrypt decrypt;install uninstall;true false;positive negative;better worse;best worst;buy sell;
win lose;safe unsafe;legal illegal;possible impossible;public private;long short;high low;good bad;inside outside;
ascending descending;read write;even odd;strong weak;early late;rich poor;male female;north south;day night;push pull;
include exclude;allow forbid;accept reject;success failure;advantages disadvantages;older younger;heavy light
""".replace("\n", "").split(";")
]
_OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
_UNITS = {
    "ms": "s", "seconds": "minutes", "minutes": "hours", "hours": "days", "days": "weeks", "weeks": "months",
    "months": "years", "years": "months", "kg": "lb", "km": "miles", "miles": "km", "cm": "mm", "meters": "feet",
    "feet": "meters", "inches": "feet", "pounds": "ounces", "dollars": "euros", "cents": "dollars", "MB": "GB",
    "GB": "TB", "percent": "points", "gallons": "quarts", "liters": "gallons", "mph": "km/h", "grams": "ounces",
    "hour": "minute", "day": "week", "week": "month", "month": "year", "year": "month", "minute": "hour", "mg": "g",
    "second": "minute",
}  # fmt: skip
_QUESTIONS = {
    "why": "how", "how": "why", "what": "why", "when": "where", "where": "when", "who": "when", "which": "how many",
}  # fmt: skip
_NUMBERS = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty", "thirty",
    "forty", "fifty", "hundred", "thousand",
]  # fmt: skip
_QUANTITIES = {
    "all": "some", "every": "no", "each": "one", "only": "also", "and": "or", "or": "and", "must": "may",
    "should": "must", "most": "few", "many": "few", "both": "neither", "always": "sometimes", "never": "always",
    "least": "most", "at least": "at most", "more than": "less than", "next": "previous", "today": "yesterday",
    "exactly": "about",
}  # fmt: skip
_NAMES = [
    "Norway", "Kafka", "Lisbon", "Oracle", "Gregor", "Toyota", "Mozart", "Erlang", "Bolivia", "Samsung", "Hannah",
    "Saturn",
]  # fmt: skip
_NOUNS = ["lantern", "invoice", "glacier", "violin", "ledger", "orchard", "turbine", "passport"]
_AUXILIARIES = r"is|are|was|were|can|could|should|will|would|does|do|did|has|have|must|may"
_SMALL = [
    "of", "in", "on", "at", "to", "for", "with", "by", "from", "and", "or", "is", "are", "was", "were", "be",
    "been", "as", "has", "have", "had", "do", "does", "did",
]  # fmt: skip


def harmful(prompt: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, mutated prompt) for every kind of edit that applies; at most one per kind."""
    for kind, edit in _HARMFUL.items():
        changed = edit(prompt, rng)
        if changed is not None and changed.split() != prompt.split():
            yield kind, changed


def harmless(prompt: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, edited prompt) for every harmless edit that applies."""
    for kind, edit in _HARMLESS.items():
        changed = edit(prompt, rng)
        if changed is not None and changed != prompt:
            yield kind, changed


def _replaced(prompt: str, pattern: str, make: Callable[[re.Match[str]], str], rng: random.Random) -> str | None:
    matches = list(re.finditer(pattern, prompt))
    if not matches:
        return None
    match = rng.choice(matches)
    return prompt[: match.start()] + make(match) + prompt[match.end() :]


def _number(prompt: str, rng: random.Random) -> str | None:
    def other(match: re.Match[str]) -> str:
        digits = match.group()
        swapped = digits[::-1]
        options = [str(int(digits) + 1), digits + "0"] + ([swapped] if swapped != digits and swapped[0] != "0" else [])
        return rng.choice(options)

    return _replaced(prompt, r"(?<![\w.])\d{1,9}(?![\w]|\.\d)", other, rng)


def _spelled(prompt: str, rng: random.Random) -> str | None:
    words = "|".join(_NUMBERS)
    return _replaced(prompt, rf"\b(?:{words})\b", lambda m: rng.choice([n for n in _NUMBERS if n != m.group()]), rng)


def _unit(prompt: str, rng: random.Random) -> str | None:
    units = "|".join(_UNITS)
    pattern = rf"(?<=\d )(?:{units})\b|(?<=\d)(?:ms|kg|km|cm|MB|GB|mg)\b"
    return _replaced(prompt, pattern, lambda m: _UNITS[m.group()], rng)


def _identifier(prompt: str, rng: random.Random) -> str | None:
    pattern = r"\b[A-Za-z]+_[A-Za-z_]*[A-Za-z]\b|\b[a-z]+[A-Z][A-Za-z]+\b"

    def other(match: re.Match[str]) -> str:
        text = match.group()
        return rng.choice([text + "s", text + "_2", "my" + text, text[:-1] + ("x" if text[-1] != "x" else "y")])

    return _replaced(prompt, pattern, other, rng)


def _path(prompt: str, rng: random.Random) -> str | None:
    def other(match: re.Match[str]) -> str:
        stem, _, ending = match.group().rpartition(".")
        return rng.choice([f"{stem}2.{ending}", f"{stem}.{'bak' if ending != 'bak' else 'txt'}"])

    return _replaced(
        prompt, r"\b[\w/]*[a-z_]\w*\.(?:py|js|ts|txt|md|json|ya?ml|csv|sh|toml|cfg|html|sql|go|rs|java)\b", other, rng
    )


def _negate(prompt: str, rng: random.Random) -> str | None:
    if re.search(r"\bnot\b", prompt):
        return re.sub(r"\bnot ", "", prompt, count=1)
    match = re.search(rf"(?<=\w )(?:{_AUXILIARIES})(?= [a-z])", prompt)
    if match and not prompt[: match.start()].rstrip().lower().endswith(
        ("what", "how", "why", "which", "who", "where", "when")
    ):
        return prompt[: match.end()] + " not" + prompt[match.end() :]
    match = re.match(r"[A-Z][a-z]+(?= (?:the|a|an|this|all|my)\b)", prompt)
    if match and match.group() not in (
        "In",
        "On",
        "At",
        "What",
        "Is",
        "Are",
        "For",
        "From",
        "If",
        "When",
        "Of",
        "To",
        "By",
        "With",
        "As",
    ):
        return "Do not " + prompt[0].lower() + prompt[1:]
    return None


def _direction(prompt: str, rng: random.Random) -> str | None:
    """ "from A to B", "A before B", "A than B", "A into B", "A with B": A and B change places."""
    word = r"((?!(?:the|a|an|this|that|it|to|of|in|be|is|are|i|you|we|they|he|she|his|her|their|my|your)\b)[\w.-]*\w)"
    patterns = [
        rf"\bfrom {word} (?:in)?to {word}\b",
        rf"\b{word} (?:before|after|than|into|onto|over|against|instead of) {word}\b",
        rf"\bbetween {word} and not {word}\b",
    ]
    for pattern in patterns:
        match = re.search(pattern, prompt)
        if match and match[1].lower() != match[2].lower():
            whole, a, b = match.group(), match.start(1) - match.start(), match.start(2) - match.start()
            changed = whole[:a] + match[2] + whole[a + len(match[1]) : b] + match[1] + whole[b + len(match[2]) :]
            return prompt[: match.start()] + changed + prompt[match.end() :]
    return None


def _roles(prompt: str, rng: random.Random) -> str | None:
    """Two names change places."""
    names = list(re.finditer(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", prompt))
    pairs = [(a, b) for a in names for b in names if a.start() < b.start() and a.group() != b.group()]
    pairs = [(a, b) for a, b in pairs if not re.fullmatch(r",? (?:and|or|,|&) ?", prompt[a.end() : b.start()])]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    if (
        "," in prompt[a.end() : b.start()]
        or " and " in prompt[a.end() : b.start()]
        or " or " in prompt[a.end() : b.start()]
    ):
        return None  # members of a list
    return prompt[: a.start()] + b.group() + prompt[a.end() : b.start()] + a.group() + prompt[b.end() :]


def _words_swapped(prompt: str, rng: random.Random) -> str | None:
    """Subject and object change places: the words on both sides of a verb."""
    match = re.search(r"\b(?:the|an?) ([a-z]{3,}) ([a-z]+(?:s|ed)) (?:the|an?) ([a-z]{3,})\b", prompt)
    if not match or match[1] == match[3] or match[2] in _SMALL:
        return None
    return (
        prompt[: match.start(1)] + match[3] + prompt[match.end(1) : match.start(3)] + match[1] + prompt[match.end(3) :]
    )


def _entity(prompt: str, rng: random.Random) -> str | None:
    return _replaced(
        prompt, r"(?<=[a-z] )[A-Z][a-z]{2,}\b", lambda m: rng.choice([n for n in _NAMES if n != m.group()]), rng
    )


def _noun(prompt: str, rng: random.Random) -> str | None:
    pattern = r"(?<=\b(?:the|our) )(?!(?:following|same|answer)\b)[a-z]{4,}\b"
    return _replaced(prompt, pattern, lambda m: rng.choice(_NOUNS), rng)


def _antonym(prompt: str, rng: random.Random) -> str | None:
    return _replaced(prompt, rf"\b(?:{'|'.join(_OPPOSITE)})\b", lambda m: _OPPOSITE[m.group()], rng)


def _question(prompt: str, rng: random.Random) -> str | None:
    match = re.search(r"(?:\A|(?<=[.?!] ))(?:Why|How|What|When|Where|Who|Which)\b(?! many| much)", prompt)
    if not match:
        return None
    return prompt[: match.start()] + _QUESTIONS[match.group().lower()].capitalize() + prompt[match.end() :]


def _quantity(prompt: str, rng: random.Random) -> str | None:
    return _replaced(
        prompt,
        rf"\b(?:{'|'.join(sorted(_QUANTITIES, key=len, reverse=True))})\b",
        lambda m: _QUANTITIES[m.group()],
        rng,
    )


def _verb(prompt: str, rng: random.Random) -> str | None:
    match = re.match(
        r"(?:Write|Explain|Create|Delete|List|Find|Show|Fix|Add|Convert|Summari[sz]e|Review|Translate|Describe)\b",
        prompt,
    )
    if not match:
        return None
    return rng.choice(["Ignore", "Criticise", "Postpone", "Count"]) + prompt[match.end() :]


_HARMFUL: dict[str, Edit] = {
    "number": _number, "spelled_number": _spelled, "unit": _unit, "identifier": _identifier, "path": _path,
    "negation": _negate, "direction": _direction, "roles": _roles, "subject_object": _words_swapped, "entity": _entity,
    "noun": _noun, "antonym": _antonym, "question": _question, "quantity": _quantity, "verb": _verb,
}  # fmt: skip


def _outside_code(prompt: str, change: Callable[[str], str]) -> str:
    """Change what is not fenced, inline code or quoted: in there case and spacing have a meaning."""
    parts = re.split(r"(```.*?(?:```|\Z)|`[^`\n]*`|[\"“][^\"\n]*[\"”])", prompt, flags=re.DOTALL)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def _contracted(prompt: str, rng: random.Random) -> str | None:
    changed = prompt
    for long, short in (
        (r"\bdo not\b", "don't"), (r"\bdoes not\b", "doesn't"), (r"\bis not\b", "isn't"), (r"\bcannot\b", "can't"),
        (r"\b[Ww]hat is\b", "What's"),
        (r"\bit is\b", "it's"), (r"\bI am\b", "I'm"), (r"\bare not\b", "aren't"), (r"\bdid not\b", "didn't"),
    ):  # fmt: skip
        changed = re.sub(long, short, changed)
    return changed if changed != prompt else None


def _expanded(prompt: str, rng: random.Random) -> str | None:
    changed = prompt
    for short, long in (
        ("don't", "do not"), ("doesn't", "does not"), ("isn't", "is not"), ("can't", "cannot"), ("What's", "What is"),
        ("it's", "it is"), ("I'm", "I am"), ("aren't", "are not"), ("didn't", "did not"),
    ):  # fmt: skip
        changed = re.sub(rf"\b{short}\b", long, changed)
    return changed if changed != prompt else None


def _typographic(prompt: str, rng: random.Random) -> str | None:
    changed = re.sub(r"(?<=\w)'(?=\w)", "’", prompt)
    changed = re.sub(r'"([^"\n]*)"', "“\\1”", changed)
    return changed if changed != prompt else None


_HARMLESS: dict[str, Edit] = {
    "lower_first": lambda p, r: p[:1].lower() + p[1:],
    "lower": lambda p, r: _outside_code(p, str.lower),
    "double_spaces": lambda p, r: _outside_code(p, lambda text: text.replace(" ", "  ")),
    "padding": lambda p, r: f"  {p}\n\n",
    "no_final_punctuation": lambda p, r: p.rstrip(" .?!"),
    "exclamation": lambda p, r: p.rstrip(" .?!") + "!",
    "please": lambda p, r: "Please " + p[:1].lower() + p[1:],
    "please_end": lambda p, r: p.rstrip(" .") + ", please.",
    "could_you": lambda p, r: "Hello! " + p,
    "thanks": lambda p, r: p + " Thanks!",
    "thank_you": lambda p, r: p + "\nThank you in advance.",
    "contracted": _contracted,
    "expanded": _expanded,
    "typographic": _typographic,
}


def sample(prompts: Sequence[str], count: int, seed: int = 1) -> list[str]:
    """`count` different prompts of 12 to 1,500 characters, the same ones for the same seed."""
    fitting = sorted({p for p in prompts if 12 <= len(p) <= 1500})
    return random.Random(seed).sample(fitting, min(count, len(fitting)))
