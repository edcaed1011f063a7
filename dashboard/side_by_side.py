"""A replay's result as rows of a table: what it is now, what it would be, and whether that is better.

Rule: only words and formats; every figure is the replay's. Must not know: HTML.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optimizer.core.tuning import Figures, Verdict
from optimizer.simulation.compared import sentence


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `better` is "good", "bad" or "" for neither."""

    label: str
    current: str
    changed: str
    difference: str
    better: str


# field of Figures, label, unit, 1 if higher is better, -1 if lower is, 0 if neither
_FIGURES = (
    ("requests", "requests", "", 0),
    ("mean_s", "mean response", "s", -1),
    ("p95_s", "p95 response", "s", -1),
    ("within_target", "within target", "%", 1),
    ("lateness", "response / target", "×", -1),
    ("swaps", "swaps", "", -1),
    ("cache_hits", "from the cache", "%", 0),
    ("cut_short", "answers cut short", "%", -1),
)
_OF_TIER = _FIGURES[:4]
SAME = 0.005  # relative differences below this are not called better or worse


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The whole recording."""
    return list(_rows(result["totals"]["current"], result["totals"]["changed"], _FIGURES))


def tiers(result: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """(tier, its rows), strongest first."""
    return [(found["tier"], list(_rows(found["current"], found["changed"], _OF_TIER))) for found in result["tiers"]]


def of_figures(before: Figures, after: Figures) -> list[Row]:
    """Measured figures of two times; a time without a request has no figures to compare with."""
    names = [row for row in _FIGURES if row[0] != "cut_short"]
    pairs = [{row[0]: getattr(side, row[0]) for row in names} for side in (before, after)]
    found = list(_rows(pairs[0], pairs[1], names))
    if before.requests:
        return found
    return [replace(row, current="–", difference="–", better="") for row in found]


def verdict(result: Mapping[str, Any]) -> str:
    """The replay's verdict in a sentence."""
    effect = {name: math.inf if value is None else value for name, value in result["effect"].items()}
    return sentence(Verdict(**effect))


def _rows(old: Mapping[str, float], new: Mapping[str, float], figures: Any) -> Iterator[Row]:
    for name, label, unit, direction in figures:
        before, after = old[name] or 0.0, new[name] or 0.0
        ratio = after / before if before else 1.0
        moved = abs(ratio - 1.0) >= SAME or (not before and after > 0)
        better = "" if not moved or not direction else "good" if (after > before) == (direction > 0) else "bad"
        yield Row(label, _shown(before, unit), _shown(after, unit), _difference(before, after, unit), better)


def _shown(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}".replace("%", " %")
    if unit == "s":
        return f"{value:.2f} s"
    return f"{value:.3f}" if unit == "×" else f"{value:,.0f}"


def _difference(before: float, after: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * (after - before):+.1f} points"
    return f"{after / before - 1:+.1%}".replace("%", " %") if before else "–"
