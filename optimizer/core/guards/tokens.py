"""Cuts a prompt into tokens: words, numbers with their units, identifiers, literals, operators, sentence ends.

Rule: what is fenced, quoted or inline code stays to the letter; ornaments (bullets, dashes, emphasis) vanish.
Must not know: what the words mean.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.core.guards import vocabulary, words

_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "′": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": " - ",
     "‐": "-", "‑": "-", "−": "-", "\u200b": "", "\u200d": "", "\ufeff": "", "×": "*", "\u00ad": ""}
)  # fmt: skip

_TOKEN = re.compile(
    r"""
      (?P<fence> ```.*?(?:```|\Z) )
    | (?P<inline> ``[^`\n]+`` | `[^`\n]+` )
    | (?P<url> [a-zA-Z][a-zA-Z0-9+.]*://[^\s<>"')\]]*[^\s<>"')\].,;:!?] )
    | (?P<quote> "[^"\n]{1,400}" | (?<![\w'])'[^'\n]{1,200}'(?!\w) )
    | (?P<run>
        (?: --?(?=[A-Za-z]) | [~./\\@\#]+(?=\w) | (?<![\w)])[-+](?=\.?\d) )?
        \w+ (?: [-.,/\\:@'&+\#_]+ \w+ )*
        (?: \+\+ | \#(?!\w) | [/](?=\s|$) )?
      )
    | (?P<symbol> [=!<>]=|->|=>|&&|\|\||<<|>>|\*\*|[=<>+*/^%&|~@$€£°-]|[^\w\s.,;:!?'"()\[\]{}`\\#-] )
    | (?P<stop> [.?!;:,]+ | \n )
    | (?P<bracket> [()\[\]{}] )
    """,
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)*|[-+]?\.\d+")
_NUMBER_UNIT = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?)([a-zA-Z]{1,5})")
_COMPOUND = re.compile(r"\d+(?:-[a-zA-Z]{3,})+")
_PRICE = re.compile(r"(rs|usd|eur|inr)\.?(\d[\d,]*)", re.IGNORECASE)
_VERSION = re.compile(r"v(\d+(?:\.\d+)*)", re.IGNORECASE)
_INITIALS = re.compile(r"(?:[a-z]\.)+[a-z]\.?", re.IGNORECASE)
_CAMEL = re.compile(r"[a-z][A-Z]")
_OPERATORS = frozenset("+*/^=<>-")
_CASED_UNITS = frozenset({"mw", "mv", "ma", "mj", "mhz", "mb", "mbit"})  # 5 mW is not 5 MW
_MONEY = {"$": "usd", "€": "eur", "£": "gbp"}


@dataclass(slots=True)
class Token:
    text: str  # words in lower case
    kind: str  # word | number | identifier | literal | symbol | stop
    name: bool = False
    exact: bool = False  # a word with capitals inside: its form is its own


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a prompt, in order; typographic quotes and dashes are read as plain ones."""
    return _tokens(unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY))


def _tokens(text: str) -> Iterator[Token]:
    previous_number = False
    for match in _TOKEN.finditer(text):
        kind, raw = match.lastgroup or "", match.group()
        if kind == "run":
            tokens = list(_run(raw, previous_number))
            if tokens and match.start() and text[match.start() - 1] in _MONEY:
                tokens.insert(1, Token(_MONEY[text[match.start() - 1]], "number"))
            yield from tokens
            previous_number = bool(tokens) and tokens[-1].kind == "number" and tokens[-1].text[-1].isdigit()
            continue
        if kind in ("fence", "inline"):
            yield Token(_code(raw), "literal")
        elif kind == "quote":
            yield Token(raw[1:-1].strip(), "literal")
        elif kind == "url":
            yield Token(raw, "identifier")
        elif kind == "stop":
            yield Token(raw, "stop")
        elif kind == "symbol" and raw not in _MONEY:
            yield from _symbol(raw, text, match.start(), match.end(), previous_number)
        elif kind == "bracket" and _is_formula(text, match.start(), match.end()):
            yield Token(raw, "symbol")
        previous_number = False


def _code(raw: str) -> str:
    """Code to the letter, but for its fence, trailing blanks and the brackets of an empty call."""
    lines = raw.strip("`").split("\n")
    code = "\n".join(line.rstrip() for line in lines).strip("\n")
    return code.strip().removesuffix("()") if len(lines) == 1 else code


def _symbol(raw: str, text: str, start: int, end: int, after_number: bool) -> Iterator[Token]:
    """Operators count, ornaments (bullets, rules, emphasis) do not."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if raw == "&":
        yield Token("and", "word")
    elif raw == "%":
        yield Token("%", "number" if after_number else "symbol")
    elif not _is_ornament(raw, text, start, end) and not (raw == "/" and before.isalpha() and after.isalpha()):
        yield Token(raw, "symbol")


def _is_ornament(raw: str, text: str, start: int, end: int) -> bool:
    return raw in ("-", "*", "**", "|", "~", "=", ">", "+") and not _between_operands(text, start, end)


def _between_operands(text: str, start: int, end: int) -> bool:
    """True inside a formula: x - 5, a*b; false for dashes, bullets and emphasis."""
    left, right = text[max(start - 8, 0) : start].rstrip(" ")[-1:], text[end : end + 8].lstrip(" ")[:1]
    if not left or not right or left == "\n" or right == "\n":
        return False
    if text[start:end] in ("=", ">", "+", "|", "~"):
        return left not in ">=+|~-" and right not in "=+|~-"
    tight = text[start - 1 : start] != " " and text[end : end + 1] != " "
    return (
        (left.isalnum() or left in ")]")
        and (right.isalnum() or right in "([")
        and (tight or left.isdigit() or right.isdigit() or _lone(text, start, end))
    )


def _lone(text: str, start: int, end: int) -> bool:
    """Both sides are single letters: the operands of "a - b"."""
    left, right = text[max(start - 8, 0) : start].split(" ")[-2:-1], text[end : end + 8].split(" ")[1:2]
    return bool(left and right) and len(left[0]) == 1 and len(right[0].rstrip(".,?)")) == 1


def _is_formula(text: str, start: int, end: int) -> bool:
    return text[start - 1 : start] in _OPERATORS or text[end : end + 1] in _OPERATORS


def _run(raw: str, after_number: bool) -> Iterator[Token]:
    """One run of letters, digits and joints: a word, a number with its unit, or an identifier."""
    if _NUMBER.fullmatch(raw):
        yield Token(raw.lstrip("+").replace(",", "") if _thousands(raw) else raw.lstrip("+"), "number")
        return
    if raw.isalpha():
        lower = raw.lower()
        if after_number and lower in vocabulary.UNITS:
            yield Token(_unit(raw), "number")
        elif lower in words.CONTRACTIONS:
            yield from (Token(word, "word") for word in words.CONTRACTIONS[lower].split())
        else:
            yield Token(words.ACRONYMS.get(raw, lower), "word", raw[0].isupper(), bool(_CAMEL.search(raw)))
        return
    if match := _VERSION.fullmatch(raw):
        yield Token(match[1], "number")
        return
    if (match := _NUMBER_UNIT.fullmatch(raw)) and match[1] and match[2].lower() in vocabulary.UNITS:
        if match[2].lower() == "k":
            yield Token(match[1] + "000", "number")
        else:
            yield Token(match[1].replace(",", ""), "number")
            yield Token(_unit(match[2]), "number")
        return
    if _INITIALS.fullmatch(raw):
        yield Token(raw.replace(".", "").lower(), "word", raw[0].isupper())
        return
    if "'" in raw:
        yield from _apostrophe(raw)
        return
    if _COMPOUND.fullmatch(raw):  # 15-year-old
        for part in raw.split("-"):
            yield from _run(part, part.lower() in vocabulary.UNITS)
        return
    if match := _PRICE.fullmatch(raw):  # Rs.500
        yield Token(match[2].replace(",", ""), "number")
        yield Token(vocabulary.UNITS[match[1].lower()], "number")
        return
    parts = re.split(r"[-&,:]+|\.{2,}", raw.strip("-"))
    if (
        len(parts) > 1
        and not raw.startswith("-")
        and (all(part.isalpha() for part in parts) or re.search("[,:&]|\\.\\.", raw))
    ):
        if re.search(r"\d[:,-]\d|::|:/|\\", raw):
            yield Token(raw, "identifier")
            return
        for part in parts:
            if part:
                yield from _run(part, False)
        return
    if re.fullmatch(r"\w+(/\w+)+", raw) and raw.replace("/", "").isalpha() and raw.count("/") == 1:
        for part in raw.split("/"):
            yield Token(part.lower(), "word", part[0].isupper())
        return
    plain = raw.rstrip("/")
    exact = "_" in plain or "/" in plain or "\\" in plain or "." in plain or plain.startswith("-")
    yield Token(plain if exact else plain.lower(), "identifier", raw[0].isupper())


def _thousands(raw: str) -> bool:
    return "," in raw


def _unit(raw: str) -> str:
    lower = raw.lower()
    unit = vocabulary.UNITS[lower]
    return unit + raw[0] if lower in _CASED_UNITS and lower != "mb" else unit


def _apostrophe(raw: str) -> Iterator[Token]:
    lower = raw.lower()
    if lower in words.CONTRACTIONS:
        yield from (Token(word, "word") for word in words.CONTRACTIONS[lower].split())
    elif lower.endswith("n't"):
        yield Token(lower[:-3], "word")
        yield Token("not", "word")
    elif lower.endswith("'s"):
        head = lower[:-2]
        yield from _run(raw[:-2], False)
        if head in words.IS_AFTER:
            yield Token("is", "word")
    else:
        for ending, word in words.ENDINGS.items():
            if lower.endswith(ending):
                yield from _run(raw[: -len(ending)], False)
                yield Token(word, "word")
                return
        for part in raw.split("'"):
            if part:
                yield from _run(part, False)
