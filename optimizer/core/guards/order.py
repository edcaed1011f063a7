"""Order and roles: the same words in other places are another question ("from A to B", "dog bites man").

Rule: two terms may change their order only where something else still says which is which: different prepositions
that both texts share, "or", "A of B" against "B A", or a noun that only says what the name beside it is.
Must not know: why the terms are the same.
"""

from optimizer.core.guards import words
from optimizer.core.guards.reading import Term

LONG_TERMS = 40  # beyond this many terms any change of order is refused (quality.md: "in order for long prompts")
_PLACED = frozenset({"word", "number", "identifier", "literal", "symbol"})
# "Earned by / from trading", "compiled with / by gcc", "compared with / to Rust", "explained for / to a child".
_ALIKE = ({"by", "from"}, {"by", "with"}, {"with", "to"}, {"for", "to"})
_PLACE = frozenset({"of", "in"})


def order_conflict(cached: tuple[Term, ...], asked: tuple[Term, ...]) -> str:
    """Why the terms the two share do not stand in the same places; "" if they do."""
    left = [term for term in cached if term.kind in _PLACED]
    right = [term for term in asked if term.kind in _PLACED]
    pairs = _aligned(left, right)
    for i, j in pairs:
        a, b = left[i].role, right[j].role
        if a != b and a in words.STRONG and b in words.STRONG and {a, b} not in _ALIKE:
            return f"'{left[i].key}' stands after {a!r} / after {b!r}"
    positions = [j for _, j in pairs]
    if positions == sorted(positions):
        return ""
    if max(len(left), len(right)) > LONG_TERMS:
        return "a long prompt in another order"
    for first, (i1, j1) in enumerate(pairs):
        for i2, j2 in pairs[first + 1 :]:
            if j2 < j1 and not _movable(left, right, i1, j1, i2, j2):
                return f"'{left[i1].key}' and '{left[i2].key}' change places"
    return ""


def _aligned(left: list[Term], right: list[Term]) -> list[tuple[int, int]]:
    """Positions of the same key in both, the n-th with the n-th, in the order of the left."""
    where: dict[str, list[int]] = {}
    for j in range(len(right) - 1, -1, -1):
        where.setdefault(right[j].key, []).append(j)
    return [(i, where[term.key].pop()) for i, term in enumerate(left) if where.get(term.key)]


def _movable(left: list[Term], right: list[Term], i1: int, j1: int, i2: int, j2: int) -> bool:
    """May the terms (i1, j1) and (i2, j2), which stand in opposite order, do so?"""
    x, y, x2, y2 = left[i1], left[i2], right[j1], right[j2]
    if x.key == y.key:
        return True
    if x.role == x2.role and y.role == y2.role and x.role != y.role:
        return True
    adjacent = i2 - i1 == 1 and j1 - j2 == 1
    if (
        adjacent
        and not (x.role or x2.role or y.role or y2.role)
        and (x.key in words.KIND_NOUNS) != (y.key in words.KIND_NOUNS)
    ):
        return True
    # "line 42 of scheduler.py" / "scheduler.py line 42": the owner moves in front and loses its preposition.
    if j1 - j2 > 4 or i2 - i1 > 4:
        return False
    if _owned(y) and not y2.role:
        return x.role == x2.role not in _PLACE
    return _owned(x2) and not x.role and y.role == y2.role not in _PLACE


def _owned(term: Term) -> bool:
    """Governed by "of" or "in", or a date or number after "from"."""
    return term.role in _PLACE or (term.role == "from" and term.kind != "word")
