"""Cutting a text to a token budget: what matters least goes first, and the text says that something went.

Rule: the instruction (the opening) and the question stay; every other line is scored, by its bearing on the question
where one is known, else by how much only this line says; the best that fit are kept in their order. The result is
never over the budget, however small. Prefer this to the strategy's cut at the end, which loses the question.
Must not know: tiers, messages, where the budget comes from.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.core.relevance import SENTENCE_LIKE, Embed, Scores, relevance, telling

Count = Callable[[str], int]

GAP = "…"  # one token; stands behind the last kept line before a gap
_OPENING_SHARE = 0.25  # of the budget that the opening may take unseen
_CODE_COSTS = 0.3  # code says a lot that only it says; without a question, prose is still the safer guess
_SECOND_TRIES = 12  # parts that are tried once more when the chosen ones leave room
_LONG_LINE = 60  # tokens above which a line is cut into sentences

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(\[])")
_FENCE = re.compile(r"^\s{0,3}(?:```|~~~)")
_ROLE = re.compile(r"(?:you are|you['’]re|act as|your (?:task|role|job|goal) is)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Truncated:
    """`dropped` says in words what is missing; "" when nothing is."""

    text: str
    tokens_before: int
    tokens_after: int
    dropped: str = ""


@dataclass(slots=True)
class _Unit:
    """A line, or a sentence of a long one."""

    text: str
    line: int
    tokens: int
    fence: int = -1  # number of the fenced block it is in
    delimiter: bool = False  # opens or closes that block
    pinned: bool = False
    score: float = 0.0


def truncate(
    text: str, budget_tokens: int, count: Count, *, question: str = "", embed: Embed | None = None
) -> Truncated:
    """The text within a budget. `question` is what the text is needed for, where it is known; without one, a
    question that opens or ends the text is taken.
    """
    before = count(text)
    if before <= budget_tokens:
        return Truncated(text, before, before)
    units = _units(text, count)
    question = question or _own_question(units)
    _pin(units, budget_tokens, question)
    for unit, score in zip(units, _scores(units, question, embed), strict=True):
        unit.score = float(score)
    kept = _chosen(units, budget_tokens)
    shorter = _assembled(units, kept)
    for i in _next_best(units, kept):  # estimates leave a little room; it is used up here
        if count(longer := _assembled(units, kept | {i})) <= budget_tokens:
            kept.add(i)
            shorter = longer
    while kept and count(shorter) > budget_tokens:
        loose = [i for i in kept if not units[i].pinned] or sorted(kept)
        kept.discard(min(loose, key=lambda i: (units[i].delimiter, units[i].score, -i)))
        shorter = _assembled(units, kept)
    if not kept:  # not even one line fits
        shorter = _head(text, budget_tokens, count)
        return Truncated(shorter, before, count(shorter), f"all but the first words ({before} tokens)")
    after = count(shorter)
    order = "least relevant" if question else "least telling"
    gone = f"{len(units) - len(kept)} of {len(units)} parts ({before - after} tokens), the {order} first"
    return Truncated(shorter, before, after, gone)


def _next_best(units: list[_Unit], kept: set[int]) -> list[int]:
    others = [i for i, unit in enumerate(units) if i not in kept and not unit.delimiter]
    return sorted(others, key=lambda i: (-units[i].score, i))[:_SECOND_TRIES]


def _units(text: str, count: Count) -> list[_Unit]:
    units: list[_Unit] = []
    fence, inside = -1, False
    for number, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        if _FENCE.match(line):
            inside = not inside
            fence += inside
            units.append(_Unit(line, number, count("\n" + line), fence, delimiter=True))
            continue
        tokens = count("\n" + line)
        parts = _SENTENCE.split(line) if tokens > _LONG_LINE and not inside else [line]
        for part in parts:
            cost = tokens if len(parts) == 1 else count(" " + part)
            units.append(_Unit(part, number, cost, fence if inside else -1))
    return units


def _pin(units: list[_Unit], budget_tokens: int, question: str) -> None:
    """Mark the opening and the question: they stay while anything does."""
    room = budget_tokens * _OPENING_SHARE
    asked = set(question.split("\n")) if question else set()
    front = next((u.line for u in units[1:40] if u.text.strip() == "---"), -1) if _has_front(units) else -1
    body = [unit for unit in units if unit.line > front]
    first = next((u.line for u in body if SENTENCE_LIKE.match(u.text.strip())), 0)
    role = next((u.line for u in body if _ROLE.match(u.text.strip())), first)
    last = units[-1] if units else None
    for unit in units:
        wanted = unit.line in (first, role) or unit is last or unit.text.strip() in asked
        if wanted and not unit.delimiter and unit.tokens <= room:
            unit.pinned = True
            room -= unit.tokens


def _own_question(units: list[_Unit]) -> str:
    ends = [unit.text.strip() for unit in (units[-1], units[0]) if unit.tokens <= _LONG_LINE] if units else []
    return next((text for text in ends if text.endswith("?")), "")


def _has_front(units: list[_Unit]) -> bool:
    return bool(units) and units[0].line == 0 and units[0].text.rstrip() == "---"


def _scores(units: list[_Unit], question: str, embed: Embed | None) -> Scores:
    """What each unit is worth; only the order matters."""
    texts = [unit.text.strip() for unit in units]
    worth = telling(texts, embed)
    for i, unit in enumerate(units):
        worth[i] -= _CODE_COSTS * (unit.fence >= 0)
    if not question.strip():
        return worth
    return np.asarray(relevance(question, texts, embed) + 0.1 * worth, dtype=np.float32)


def _chosen(units: list[_Unit], budget_tokens: int) -> set[int]:
    """The pinned units and the best others that fit by their own counts; fences come with what they hold."""
    left = budget_tokens - sum(unit.tokens for unit in units if unit.pinned) - 20  # the mark of the first gap
    kept = {i for i, unit in enumerate(units) if unit.pinned}
    for i in sorted(range(len(units)), key=lambda i: (-units[i].score, i)):
        unit = units[i]
        if not unit.pinned and not unit.delimiter and unit.tokens < left:
            kept.add(i)
            left -= unit.tokens + 1  # the gap mark behind it
    return kept


def _assembled(units: list[_Unit], kept: set[int]) -> str:
    """Kept units in order, gaps marked; the first mark says how much is missing."""
    fences = {units[i].fence for i in kept if units[i].fence >= 0}
    shown = [i for i, u in enumerate(units) if i in kept or (u.delimiter and u.fence in fences)]
    missing = len(units) - len(shown)
    pieces: list[str] = []
    previous, explained = -1, False
    for i in [*shown, len(units)]:
        if i != previous + 1:
            mark = GAP if explained else f"[{GAP} {missing} of {len(units)} parts left out to fit]"
            same_line = explained and pieces
            pieces.append(mark if not pieces else (" " if same_line else "\n") + mark)
            explained = True
        if i < len(units):
            joint = " " if previous >= 0 and units[previous].line == units[i].line and i == previous + 1 else "\n"
            pieces.append((joint if pieces else "") + units[i].text)
        previous = i
    return "".join(pieces)


def _head(text: str, budget_tokens: int, count: Count) -> str:
    """As many first words as fit, with the gap mark if that fits too."""
    low, high = 0, len(text)
    while low < high:  # the longest prefix whose count fits; counts grow with length up to a token or two
        middle = (low + high + 1) // 2
        if count(text[:middle].rstrip() + " " + GAP) <= budget_tokens:
            low = middle
        else:
            high = middle - 1
    whole_words = text[:low].rsplit(None, 1)
    cut = whole_words[0] if len(whole_words) == 2 else text[:low]
    head = f"{cut.rstrip()} {GAP}".strip()
    return head if count(head) <= budget_tokens else ""
