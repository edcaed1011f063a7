"""Prompt compression: the same instruction in fewer tokens, and never a different one.

Rule: a rewrite is applied only where it saves tokens by the given counter, only outside protected spans
(protected.py), and only if nothing protected is lost; passes are repeated until nothing changes, so compressing
twice changes nothing, and a text is looked at alone, so equal messages stay byte-equal from turn to turn.
The strategy's abbreviation table is left out on purpose: none of 72 words saves a token in three tokenizers and
10 to 18 cost one (research/quality.md).

Levels, each with all of the one before it:
    minimal     what carries no meaning: white space, JSON layout, table padding, repeated log lines
    moderate    + decoration (bold, heading emoji, rules) and wordy phrases
    aggressive  + articles and intensifiers in chatty text
Must not know: tiers, models, budgets.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimizer.core import protected
from optimizer.core.logfold import fold, name_tail
from optimizer.core.protected import Region, RegionKind
from optimizer.core.tiers import CompressionLevel
from optimizer.core.wording import Phrase, payload_start, phrases_in, reworded

Count = Callable[[str], int]

_PASSES_AT_MOST = 6  # two are the rule: one that rewrites, one that finds nothing more
_LONG_LINE = 20_000  # characters above which a line is data, whatever it looks like


@dataclass(frozen=True, slots=True)
class Compressed:
    """A text and what it costs now; `rewrites` names the kinds of rewrite that were used."""

    text: str
    tokens_before: int
    tokens_after: int
    rewrites: tuple[str, ...] = ()


def compress(text: str, level: CompressionLevel, count: Count) -> Compressed:
    """The text at a level. Deterministic, idempotent, never longer in tokens."""
    before = count(text)
    work = _Work(level, count)
    current = text
    for _ in range(_PASSES_AT_MOST):
        rewritten = _once(current, work)
        if rewritten == current:
            break
        current = rewritten
    else:  # never seen but on texts made for it; the original is its own compression
        return Compressed(text, before, before)
    after = count(current)
    if after >= before:  # parts that saved alone and not together; the original is its own compression
        return Compressed(text, before, before)
    return Compressed(current, before, after, tuple(sorted(work.used)))


@dataclass(slots=True)
class _Work:
    """One call's surroundings: the names of the rewrites used so far, and the lines that need no second look."""

    level: CompressionLevel
    count: Count
    used: set[str] = field(default_factory=set)
    settled: set[tuple[str, bool, bool]] = field(default_factory=set)

    @property
    def worded(self) -> bool:
        return self.level is not CompressionLevel.MINIMAL

    def choose(self, before: str, after: str, name: str) -> str:
        """`after` where it saves tokens, else `before`."""
        if after == before or self.count(after) >= self.count(before):
            return before
        self.used.add(name)
        return after


def _once(text: str, work: _Work) -> str:
    """One pass over every region; ends because each accepted rewrite costs fewer tokens than what it replaces."""
    lower = text.lower()
    keep_layout = bool(_LAYOUT_MATTERS.search(lower))
    keep_lines = bool(_LINES_MATTER.search(lower))
    prose_end = payload_start(text) if work.worded else 0
    chatty = work.level is CompressionLevel.AGGRESSIVE and is_chatty(text)
    at, pieces = 0, []
    for region in protected.regions(text):
        piece = region.text
        if region.kind in (RegionKind.JSON, RegionKind.FENCE) and not keep_layout:
            piece = work.choose(piece, minify(region), "json")
        if region.kind in (RegionKind.LOG, RegionKind.FENCE) and not keep_lines:
            piece = work.choose(piece, _in_log(region.kind, piece, fold), "logs")
            if work.worded:
                piece = work.choose(piece, _in_log(region.kind, piece, name_tail), "logs")
        if region.kind is RegionKind.PROSE:
            piece = _blank_lines(_prose(piece, max(0, prose_end - at), chatty, work), work)
        pieces.append(piece)
        at += len(region.text)
    return "".join(pieces)


# --- data ---------------------------------------------------------------------------------------

# Where the caller asks about the layout itself, it is content.
_LAYOUT_MATTERS = re.compile(r"indent|pretty[- ]?print|whitespace|line number|line \d")
_LINES_MATTER = re.compile(r"line number|line \d|how many lines|verbatim")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\s+')
_JSON_FENCES = ("json", "")
_LOG_FENCES = ("log", "logs", "text", "txt", "console", "")


def _fence(region: Region) -> tuple[str, str, str, str]:
    """Opening line, language, body and closing line of a fenced block."""
    opening, _, rest = region.text.partition("\n")
    body, newline, closing = rest.rstrip("\n").rpartition("\n")
    language = opening.strip().strip("`~").strip().lower()
    if closing.strip()[:3] not in ("```", "~~~"):
        return region.text, language, "", ""
    return opening + "\n", language, body + newline, rest[len(body) + len(newline) :]


def minify(region: Region) -> str:
    """The region with its JSON on one line; unchanged when it is not JSON.

    Only white space between tokens goes: numbers, escapes, repeated keys and their order stay as spelled, and the
    result is parsed again and compared.
    """
    opening, language, body, closing = ("", "json", region.text, "")
    if region.kind is RegionKind.FENCE:
        opening, language, body, closing = _fence(region)
    if language not in _JSON_FENCES or body.lstrip()[:1] not in ("{", "["):
        return region.text
    value = _parsed(body)
    if value is None:
        return region.text
    small = _JSON_TOKEN.sub(lambda token: token[0] if token[0][0] == '"' else "", body)
    if _parsed(small) != value:
        return region.text
    return opening + small + body[len(body.rstrip()) :] + closing


def _parsed(text: str) -> Any:
    """The JSON value with numbers as spelled and repeated keys kept; None when the text is no JSON."""
    try:
        return json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None


def _in_log(kind: RegionKind, text: str, rewrite: Callable[[str], str]) -> str:
    """A log, bare or fenced, rewritten; a fence that holds no log is left as it is."""
    if kind is RegionKind.LOG:
        return rewrite(text)
    opening, language, body, closing = _fence(Region(kind, text))
    lines = body.splitlines()
    if language not in _LOG_FENCES or sum(1 for line in lines if protected.stamp(line)) * 2 <= len(lines):
        return text
    return opening + rewrite(body) + closing


# --- prose --------------------------------------------------------------------------------------

_PRIVATE = 0xE000  # protected spans stand as private-use characters while a line is rewritten
_HAS_PRIVATE = re.compile("[\ue000-\uf8ff]")
_BOLD = re.compile(r"(?<![\w*/\\])(\*\*|__)(?=[\w$`\"'(\[\ue000-\uf8ff])([^*_\n]*[^\s*_/\\])\1(?![\w*/])")
# Pictures that only decorate: at the start of a heading or list item. Ticks, crosses, warnings and coloured
# dots say something and stay.
_MEANING = "✅❌✓✗✔✖⚠⛔🚫🔴🟠🟡🟢🔵❗❓"
_EMOJI = re.compile(
    rf"^(\s*(?:#{{1,6}}|[-*+]|\d+[.)])\s+)(?![{_MEANING}])"
    r"[\U0001F000-\U0001FAFF\u2600-\u27BF\u2B00-\u2BFF][\uFE0F\u200D\U0001F000-\U0001FAFF\u2600-\u27BF]*\s*(?=[\w*])"
)
_CELLS = re.compile(r"[^\S\n]*\|[^\S\n]*")
_RULE_CELL = re.compile(r"\|:?-+:?(?=\|)")
_AFTER_STOP = re.compile(r"(?<=[.!?,;]) {2,}(?=\S)")


def is_chatty(text: str) -> bool:
    """Plain sentences to a person: no headings, lists or tables, and mostly words."""
    return not re.search(r"^[^\S\n]*(?:#{1,6} |[-*+•] |\d+[.)] |\|)", text, re.MULTILINE)


def _prose(text: str, wording_end: int, chatty: bool, work: _Work) -> str:
    """Line by line; wording is touched only in the first `wording_end` characters (what follows is payload)."""
    undecorate = work.worded and "bold" not in text and "asterisk" not in text
    phrases = phrases_in(text[:wording_end]) if wording_end else ()
    lines, at = text.splitlines(keepends=True), 0
    for i, line in enumerate(lines):
        # A doubled or single quotation mark: what is quoted and what is not cannot be told apart on this line.
        clear = '""' not in line and line.count('"') % 2 == 0
        reword = clear and at + len(line.rstrip()) <= wording_end
        at += len(line)
        if len(line) > _LONG_LINE or (line, reword, chatty) in work.settled:
            continue
        here = phrases_in(line, phrases) if reword else ()
        lines[i] = _line(line, undecorate, here, chatty and reword, work)
        if lines[i] == line:
            work.settled.add((line, reword, chatty))
    return "".join(lines)


def _line(line: str, undecorate: bool, phrases: Sequence[Phrase], chatty: bool, work: _Work) -> str:
    """The line rewritten, or as it was when that saves nothing or would lose something."""
    stripped = line.rstrip()
    ending = line[len(line.rstrip("\n")) :]
    if not (phrases or chatty) and stripped + ending == line and _undecorated(_tidy(stripped)) == stripped:
        return line  # most lines: nothing to do even if nothing were protected
    masked, spans = _mask(stripped)
    tidy = _tidy(masked)
    plain = _undecorated(tidy) if undecorate else tidy
    shorter = reworded(plain, phrases, chatty, work.count)
    candidate = _unmask(shorter, spans)
    if candidate is None or candidate + ending == line:
        return line
    after = candidate + ending if candidate or not stripped else ""  # a line of mere courtesy goes whole
    # Counted as they stand in the text, behind a newline: words at a text's beginning split differently.
    if work.count("\n" + candidate) >= work.count("\n" + line.rstrip("\n")):
        return line
    # Letters and figures unchanged means that nothing can be lost; the full comparison is ten times as dear.
    if _letters(candidate) != _letters(stripped) and protected.lost(line, after):
        return line
    if len(tidy) < len(masked) or len(stripped) + len(ending) < len(line):
        work.used.add("whitespace")
    if plain != tidy:
        work.used.add("markup")
    if shorter != plain:
        work.used.add("wording")
    return after


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _mask(line: str) -> tuple[str, list[str]]:
    if _HAS_PRIVATE.search(line):
        return line, []  # its own private-use characters: `_unmask` sees the mismatch and gives the line up
    spans: list[str] = []
    pieces, at = [], 0
    for start, end in protected.inline(line):
        pieces += [line[at:start], chr(_PRIVATE + len(spans))]
        spans.append(line[start:end])
        at = end
    return "".join([*pieces, line[at:]]), spans


def _unmask(line: str, spans: list[str]) -> str | None:
    """The line with its spans back; None when one is missing, doubled or out of order."""
    if [ord(mark) - _PRIVATE for mark in _HAS_PRIVATE.findall(line)] != list(range(len(spans))):
        return None
    return _HAS_PRIVATE.sub(lambda mark: spans[ord(mark[0]) - _PRIVATE], line)


def _tidy(line: str) -> str:
    if line.startswith("|") and line.endswith("|") and len(line) > 1:
        inner = _CELLS.sub("|", line)
        return _RULE_CELL.sub(lambda cell: re.sub("-+", "-", cell[0]), inner) if set(inner) <= set("|:-") else inner
    return _AFTER_STOP.sub(" ", line) if "  " in line else line


def _undecorated(line: str) -> str:
    if not line.isascii():
        line = _EMOJI.sub(r"\1", line)
    return _BOLD.sub(r"\2", line) if "**" in line or "__" in line else line


# --- blank lines --------------------------------------------------------------------------------

_MANY_BLANK = re.compile(r"\n(?:[^\S\n]*\n){2,}")
_RULE = re.compile(r"\n(?:[^\S\n]*\n)*[^\S\n]*(?:-{3,}|\*{3,}|_{3,})[^\S\n]*\n(?:[^\S\n]*\n)*(?=#{1,6} )")
_BEFORE_HEADING = re.compile(r"\n\n+(?=#{1,6} )")
_AFTER_HEADING = re.compile(r"(?:(?<=\n)|^)(#{1,6} [^\n]*)(\n\n+)(?=\S)")


def _blank_lines(text: str, work: _Work) -> str:
    """Fewer blank lines in prose: runs shortened, and none beside headings, with the rules between sections."""
    if "\n\n" not in text and "\n " not in text:
        return text

    def gap(before: str, after: str) -> str:
        return work.choose(f"x{before}x", f"x{after}x", "whitespace")[1:-1]

    text = _MANY_BLANK.sub(lambda found: gap(found[0], "\n\n"), text)
    if work.worded and "#" in text:
        text = _RULE.sub(lambda found: gap(found[0], "\n"), text)
        text = _BEFORE_HEADING.sub(lambda found: gap(found[0], "\n"), text)
        text = _AFTER_HEADING.sub(lambda found: found[1] + gap(found[2], "\n"), text)
    return text
