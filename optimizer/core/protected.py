"""What a rewrite may never touch: code, data, quotations, addresses, figures, names and the words that bind.

Rule: `regions` cuts a text into pieces that are rewritten as a whole or not at all, `inline` finds the protected
spans inside prose, and `lost` is the last word: a rewrite after which anything is lost is thrown away.
Must not know: what the rewrites are, or what they save.
"""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class RegionKind(StrEnum):
    PROSE = "prose"
    FENCE = "fence"  # ``` or ~~~, with its two fence lines
    FRONT = "front"  # YAML front matter
    JSON = "json"  # an object or array that starts a line and goes over several
    LOG = "log"  # consecutive lines of which most carry a time stamp
    CODE = "code"  # indented or unfenced code, stack traces


@dataclass(frozen=True, slots=True)
class Region:
    """A run of whole lines; the regions of a text joined give the text."""

    kind: RegionKind
    text: str


# A time stamp's day (with what joins it to the time) and its time, so that folded lines can name the time alone.
STAMP = re.compile(
    r"(?P<day>\d{4}[-/]\d\d[-/]\d\d[T ]"  # ISO 8601, Go
    r"|\d{1,2}/[A-Z][a-z]{2}/\d{4}:"  # Apache, nginx
    r"|[A-Z][a-z]{2} [ \d]\d "  # syslog
    r"|[IWEF]\d{4} "  # klog
    r"|(?<![\d:]))"  # a time alone
    r"(?P<time>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| ?[+-]\d\d:?\d\d)?)(?![\d:])"
)
_BRACKETS_AT_MOST = 8  # lines that open with a bracket and turn out no JSON; then the search is given up
_STAMP_WITHIN = 60  # characters from the line's start in which a log line's stamp is looked for
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_CODE_LINE = re.compile(
    r"^(?: {4,}|\t+)(?![-*+•] |\d+[.)] )\S"  # indented, and no list
    r"|[;{}]\s*$|^\s*[)\]}]+[;,]?\s*$"
    r"|^\s*(?:def |class \w+[(:]|import \w|from \S+ import |return\b.*[;()]|(?:if|for|while) ?\(.*\)|@\w+$|#include|"
    r"</?\w[^>]*>|(?:const|let|var) \w+ =|(?:public|private|static|func|fn) \w|SELECT .* FROM |\$ \S|>>> |"
    r"at \S+\(|File \".*\", line \d|\w+(?:\.\w+)* = \S)"
)
# Linear in the length of a line whatever it holds: an alternative that runs over a word starts at its beginning only.
# Each with the characters without which it cannot match: most lines hold none, and are searched for none.
_INLINE_PATTERNS = (
    ("`", r"``.+?``|`[^`\n]+`"),
    ("/.", r"(?<![\w+.-])[a-z][a-z0-9+.-]*://[^\s<>\"')\]]+|\bwww\.[^\s<>\"')\]]+"),
    ("@", r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+"),
    ('"', r"\"+[^\"\n]*\"+"),
    ("“«", r"“[^”\n]*”|«[^»\n]*»"),
    ("'", r"(?<!\w)'[^'\n]+'(?!\w)"),
    ("{$%<", r"\{\{[^{}\n]*\}\}|\$\{[^}\n]*\}|\$[A-Za-z_]\w*|%\w+%|</?[A-Za-z][^<>\n]*>"),
    ("/", r"(?<!\w)(?:~|\.{1,2})?/[\w.@%+~*-]+(?:/[\w.@%+~*-]*)*|(?<![\w.-])[\w.-]+(?:/[\w.*-]+)+"),
    ("\\", r"\b[A-Za-z]:\\[^\s\"]+"),
    ("-", r"(?<![\w-])--?[A-Za-z][\w-]*(?:=\S+)?"),
    ("*", r"(?<![*\d/,-])(?:[*\d/,-]+ ){4}[*\d/,-]+"),  # a cron entry
)
_NUMBER = re.compile(r"(?<![A-Za-z_])[-+]?\d+(?:[.,:/]\d+)*")
_IDENTIFIER = re.compile(
    r"\b(?:[A-Za-z]\w*[_\d]\w*|[a-z]+[A-Z]\w*|[A-Z][a-z]+[A-Z]\w*|[A-Z]{2,}\w*|\w+(?:\.\w+)+|\w+\(\))"
)
_NAME = re.compile(r"(?<![.!?:\n] )(?<=[a-z,;] )[A-Z][a-z]+\b")  # a capital inside a sentence
# Words that bind: negation, obligation, restriction. Losing one can turn an instruction round.
_BINDING = re.compile(
    r"\b(?:not|no|never|none|nor|neither|nothing|nobody|nowhere|cannot|without|unless|except|only|must|should|shall|"
    r"may|always|required|mandatory|forbidden|prohibited|avoid|until|at least|at most|exactly)\b|\w+n['’]t\b",
    re.IGNORECASE,
)


def regions(text: str) -> tuple[Region, ...]:
    """The text cut into whole-line pieces; joined they are the text again."""
    lines = text.splitlines(keepends=True)
    found: list[Region] = []
    prose: list[str] = []
    at, brackets = 0, _BRACKETS_AT_MOST

    def close_prose() -> None:
        if prose:
            found.extend(_paragraphs("".join(prose)))
            prose.clear()

    while at < len(lines):
        opens = lines[at].lstrip()[:1] in ("{", "[")
        brackets -= opens
        kind, end = _special(lines, at, opens and brackets >= 0)
        if end > at:
            brackets += opens
            close_prose()
            found.append(Region(kind, "".join(lines[at:end])))
            at = end
        else:
            prose.append(lines[at])
            at += 1
    close_prose()
    return tuple(found)


def _special(lines: list[str], at: int, look_for_json: bool) -> tuple[RegionKind, int]:
    """The kind and end of the region that starts at a line; an end of `at` means plain prose."""
    line = lines[at]
    if at == 0 and line.rstrip() == "---":
        closing = next((i for i in range(1, min(len(lines), 80)) if lines[i].rstrip() == "---"), 0)
        if closing and any(re.match(r"[\w-]+:", inner) for inner in lines[1:closing]):
            return RegionKind.FRONT, closing + 1
    if opening := _FENCE.match(line):
        return RegionKind.FENCE, _fence_end(lines, at, opening[1])
    if look_for_json:
        end = _json_end(lines, at)
        if end > at + 1:
            return RegionKind.JSON, end
    if stamp(line):
        end = log_end(lines, at)
        if end - at >= 3:
            return RegionKind.LOG, end
    return RegionKind.PROSE, at


def _fence_end(lines: list[str], at: int, mark: str) -> int:
    for end in range(at + 1, len(lines)):
        closing = _FENCE.match(lines[end])
        if closing and closing[1].startswith(mark) and not lines[end].strip().strip(mark[0]):
            return end + 1
    return len(lines)  # never closed: everything after it counts as code


def _json_end(lines: list[str], at: int) -> int:
    """The line after a bracketed block that closes at a line's end; `at` when it does not."""
    depth, inside = 0, False
    for end in range(at, len(lines)):
        for token in re.finditer(r'\\.|"|[][{}]', lines[end]):
            if token[0] == '"':
                inside = not inside
            elif not inside and token[0] in "[{":
                depth += 1
            elif not inside and token[0] in "]}":
                depth -= 1
                if depth == 0:
                    return end + 1 if not lines[end][token.end() :].strip() else at
        if inside:
            return at  # a JSON string never crosses a line
    return at


def stamp(line: str) -> re.Match[str] | None:
    """The time stamp of a log line."""
    return STAMP.search(line, 0, _STAMP_WITHIN) if ":" in line[:_STAMP_WITHIN] else None


def log_end(lines: list[str], at: int) -> int:
    """The line after a run of log lines: stamped ones and at most 3 others (a stack trace) between two of them."""
    end, gap = at + 1, 0
    for i in range(at + 1, len(lines)):
        if not lines[i].strip():
            break
        if stamp(lines[i]):
            end, gap = i + 1, 0
        else:
            gap += 1
            if gap > 3:
                break
    return end


def _paragraphs(text: str) -> list[Region]:
    """Prose, with the paragraphs that look like code taken out."""
    found: list[Region] = []
    for part in re.findall(r"(?:[^\n]*\S[^\n]*\n?)+|(?:[^\S\n]*\n)+|[^\S\n]+$", text):
        lines = part.splitlines()
        looks = sum(1 for line in lines if _CODE_LINE.search(line))
        # A list item may quote code; a paragraph is code when a third of it is, or its only line is.
        kind = RegionKind.CODE if looks and looks * 3 >= len(lines) and not _is_list(lines) else RegionKind.PROSE
        if found and (found[-1].kind is kind or not part.strip()):  # blank lines go with what stands before
            found[-1] = Region(found[-1].kind, found[-1].text + part)
        else:
            found.append(Region(kind, part))
    return found


def _is_list(lines: list[str]) -> bool:
    return bool(re.match(r"\s*(?:[-*+•]|\d+[.)]|#{1,6}|\|) ?", lines[0])) and not lines[0].startswith(("    ", "\t"))


def inline(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of every protected span within prose, in order."""
    pattern = _inline_pattern(tuple(any(map(text.__contains__, marks)) for marks, _ in _INLINE_PATTERNS))
    return tuple(match.span() for match in pattern.finditer(text)) if pattern else ()


@cache  # at most 2,048 combinations, of which a few dozen occur
def _inline_pattern(wanted: tuple[bool, ...]) -> re.Pattern[str] | None:
    chosen = [pattern for use, (_, pattern) in zip(wanted, _INLINE_PATTERNS, strict=True) if use]
    return re.compile("|".join(chosen)) if chosen else None


def facts(text: str) -> Counter[str]:
    """Everything in prose that a rewrite must leave, each as often as it occurs."""
    found: Counter[str] = Counter(text[start:end] for start, end in inline(text))
    for pattern in (_NUMBER, _IDENTIFIER, _NAME):
        found.update(match[0] for match in pattern.finditer(text))
    found.update(match[0].lower() for match in _BINDING.finditer(text))
    return found


def lost(before: str, after: str) -> tuple[str, ...]:
    """The facts of `before` that `after` holds less often, sorted; empty means nothing was damaged."""
    return tuple(sorted(facts(before) - facts(after)))
