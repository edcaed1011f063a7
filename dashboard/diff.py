"""Two texts as pieces that stayed, went or came, for a page that shows what was changed on the way to the model.

Rule: words for texts that a person would read word by word, whole lines for longer ones, so that the time stays
bounded. Must not know: HTML.
"""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

MOST_WORDS = 2000
MOST_LINES = 4000

_PIECES = re.compile(r"\s+|\w+|[^\w\s]")


def pieces(before: str, after: str) -> list[tuple[str, str]]:
    """[("same" | "removed" | "added", text), ...]; the texts of all but "added" make up `before`."""
    if before == after:
        return [("same", before)] if before else []
    a, b = _PIECES.findall(before), _PIECES.findall(after)
    if len(a) + len(b) > MOST_WORDS:
        a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(a) + len(b) > MOST_LINES:
        return [("removed", before), ("added", after)]
    return list(_joined(a, b))


def _joined(a: list[str], b: list[str]) -> Iterator[tuple[str, str]]:
    for kind, a_from, a_to, b_from, b_to in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            yield "same", "".join(a[a_from:a_to])
            continue
        if a_to > a_from:
            yield "removed", "".join(a[a_from:a_to])
        if b_to > b_from:
            yield "added", "".join(b[b_from:b_to])
