"""Logs told shorter: repeated lines once, and the words that every line ends with once.

    2026-04-25 11:26:49 ERROR db timeout [4x, also 15:27:31 (2x), 2026-04-25 23:37:15]

    [each line below ends "after A (attempt B, host C)" and is written with A B C alone]
    2026-04-25 11:26:49 ERROR db timeout 294ms 4/5 web-30

Rule: nothing is lost but the interleaving: lines are folded only when they agree in everything but the time stamp,
every stamp is kept, and `unfold` gives every line back. Lines without a stamp are folded only where they follow one
another. What is already folded is left alone, so doing it twice changes nothing.
Must not know: levels, tokens, who asked.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from optimizer.core.protected import STAMP, stamp

_MARK = re.compile(r" \[(\d+)x(?:, also ([^\[\]]*))?\]$")
_TOLD = re.compile(rf"{STAMP.pattern}(?: \((?P<times>\d+)x\))?")


@dataclass(slots=True)
class _Group:
    """Lines that differ in their stamps alone; `at` is the first one's place."""

    at: int
    line: str
    stamps: list[tuple[str, str]] = field(default_factory=list)  # day and time of every line, in order
    total: int = 0


def fold(text: str) -> str:
    """The log with repeated lines told once, at the place of the first."""
    ending = "\n" if text.endswith("\n") else ""
    lines = text.removesuffix("\n").split("\n")
    groups: dict[tuple[str, ...], _Group] = {}
    for at, line in enumerate(lines):
        group = groups.setdefault(_key(lines, at), _Group(at, line))
        group.total += 1
        if found := stamp(line):
            group.stamps.append((found["day"], found["time"]))
    return "\n".join(_told(group) for group in groups.values()) + ending


def _key(lines: list[str], at: int) -> tuple[str, ...]:
    """What two lines must share to be told as one."""
    line = lines[at]
    alone = (line, str(at))
    if _MARK.search(line) or not line.strip():
        return alone
    found = stamp(line)
    if found is None:
        start = at
        while start and lines[start - 1] == line:
            start -= 1
        return (line, str(start))
    followed = at + 1 < len(lines) and lines[at + 1].strip() and not stamp(lines[at + 1])
    if followed:  # a stack trace belongs to this very line
        return alone
    return (line[: found.start()], line[found.end() :], "day" if found["day"] else "")


def _told(group: _Group) -> str:
    """The group's first line with the other times behind it.

    A time stands alone on the first line's day; the earliest, the latest and the last are written in full.
    """
    if group.total == 1:
        return group.line
    if not group.stamps or len(set(group.stamps)) == 1:
        return f"{group.line} [{group.total}x]"
    first, others = group.stamps[0], Counter(group.stamps[1:])
    in_full = {min(group.stamps), max(group.stamps), group.stamps[-1]} - {first}
    told = [
        (day if day != first[0] or (day, time) in in_full else "") + time + (f" ({times}x)" if times > 1 else "")
        for (day, time), times in others.items()
    ]
    return f"{group.line} [{group.total}x, also {', '.join(told)}]"


# --- the words that every line ends with ------------------------------------------------------------

_MIN_LINES = 8  # below, the legend costs more than it saves
_SLOTS = "ABCDEFGH"
_LEGEND = re.compile(r'^\[each line below ends "(.*)" and is written with [A-H ]+ alone\]$')
_WORD = re.compile(r"^(\W*)(.*?)(\W*)$")


def name_tail(text: str) -> str:
    """The log with the constant words at the end of its lines said once, in a legend above it."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < _MIN_LINES or not all(map(stamp, lines)):
        return text
    cut = [_split_mark(line) for line in lines]
    words = [body.split(" ") for body, _ in cut]
    shapes = [[match.groups() for match in map(_WORD.match, row) if match] for row in words]
    template: list[str] = []
    keep: list[int] = []  # positions from the end whose word varies
    for back in range(1, min(map(len, words)) - 2):  # the stamp and a word at least stay
        column = [row[-back] for row in shapes]
        before, _, after = column[0]
        if all(row[-back] == words[0][-back] for row in words):
            template.append(words[0][-back])
        elif all(c[0] == before and c[2] == after and any(map(str.isdigit, c[1])) for c in column):
            template.append(f"{before}\0{after}")
            keep.append(back)
        else:
            break
    while template and "\0" in template[-1] and len(template[-1]) == 1:  # a bare value in front says nothing
        template.pop()
        keep.pop()
    constant = [part for part in template if part != "\0"]
    if not constant or not keep or len(keep) > len(_SLOTS) or any(set('"\0') & set(row[0]) for row in cut):
        return text
    keep.reverse()
    names = iter(_SLOTS)
    tail = " ".join(part.replace("\0", next(names)) if "\0" in part else part for part in reversed(template))
    slots = " ".join(_SLOTS[: len(keep)])
    told = [f'[each line below ends "{tail}" and is written with {slots} alone]']
    for row, shape, (_, mark) in zip(words, shapes, cut, strict=True):
        values = [shape[-back][1] for back in keep]
        told.append(" ".join(row[: len(row) - len(template)] + values) + mark)
    return "\n".join(told) + ("\n" if text.endswith("\n") else "")


def _split_mark(line: str) -> tuple[str, str]:
    mark = _MARK.search(line)
    return (line[: mark.start()], mark[0]) if mark else (line, "")


def _with_tail(line: str, tail: str) -> str:
    """A line of `name_tail` as it was: its last words put into the tail's slots."""
    body, mark = _split_mark(line)
    parts = re.split(r"\b([A-H])\b", tail)
    slots = len(parts) // 2
    words = body.split(" ")
    values = words[len(words) - slots :]
    parts[1::2] = values
    return " ".join([*words[: len(words) - slots], "".join(parts)]) + mark


def unfold(text: str) -> list[str]:
    """Every line of a folded log, each repeated line behind its first."""
    lines: list[str] = []
    tail = ""
    for line in text.removesuffix("\n").split("\n"):
        if legend := _LEGEND.match(line):
            tail = legend[1]
            continue
        if tail and not stamp(line):
            tail = ""
        if tail:
            line = _with_tail(line, tail)
        mark = _MARK.search(line)
        first = line[: mark.start()] if mark else line
        lines.append(first)
        if mark is None:
            continue
        found = stamp(first)
        if found is None or mark[2] is None:
            lines += [first] * (int(mark[1]) - 1)
            continue
        for other in _TOLD.finditer(mark[2]):
            when = (other["day"] or found["day"]) + other["time"]
            lines += [first[: found.start()] + when + first[found.end() :]] * int(other["times"] or 1)
    return lines
