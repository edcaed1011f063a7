"""How right the semantic cache is: labelled pairs of prompts, and edits of prompts whose effect is known.

Rule: measures what ships; embedder, guards and floors are the product's own, nothing is tuned here.
Must not know: files, command lines, requests.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from optimizer.core.caching import comparable
from optimizer.core.guards import verdict
from optimizer.core.request import CacheMode
from optimizer.core.thresholds import Thresholds
from optimizer.evaluation.mutations import harmful, harmless


class _Embed(Protocol):
    @property
    def strict_floor(self) -> float: ...

    def __call__(self, texts: Sequence[str]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the cache would do with the answer to `a` when `b` is asked."""

    served: bool
    similarity: float
    refused_by: str  # the guard, or "similarity"; "" if served
    reason: str


def outcome(a: str, b: str, embed: _Embed, *, mode: CacheMode, thresholds: Thresholds) -> Outcome:
    """One pair, as the cache sees it: similarity at or above the mode's floor, and the guards' consent."""
    first, second = embed([comparable(a), comparable(b)])
    similarity = float(np.dot(first, second))
    strict = max(thresholds.cache_similarity_strict, embed.strict_floor)
    floor = thresholds.cache_similarity if mode is CacheMode.LIGHT else strict
    word = verdict(a, b, mode)
    refused_by = word.guard if not word.allowed else "similarity" if similarity < floor else ""
    return Outcome(not refused_by, similarity, refused_by, word.reason)


def evaluate(
    rows: Iterable[Mapping[str, Any]],
    embed: _Embed,
    *,
    mode: CacheMode = CacheMode.STRICT,
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:
    """Rates over labelled pairs {"a", "b", "label", "kind"}; label 1 = may be served.

    `false_hit_rate`: share of the label-0 pairs served; `recall`: share of the label-1 pairs served; None where there
    is no such pair. `by_kind`: kind -> {"label", "pairs", "served", "rate"}. `false_hits` lists the label-0 pairs
    served, `refused_by` counts what refused label-1 pairs.
    The pairs are taken as questions of one partition. Raises KeyError for a row without a, b or label.
    """
    thresholds = thresholds or Thresholds()
    pairs: Counter[tuple[str, int]] = Counter()
    served: Counter[tuple[str, int]] = Counter()
    refused_by: Counter[str] = Counter()
    false_hits: list[dict[str, Any]] = []
    for row in rows:
        label = int(row["label"])
        kind = (str(row.get("kind", "")), label)
        pairs[kind] += 1
        found = outcome(row["a"], row["b"], embed, mode=mode, thresholds=thresholds)
        if found.served:
            served[kind] += 1
            if not label:
                false_hits.append(
                    {"a": row["a"], "b": row["b"], "similarity": found.similarity, "reason": found.reason}
                )
        elif label:
            refused_by[found.refused_by] += 1
    return {
        "false_hit_rate": _rate(served, pairs, 0),
        "recall": _rate(served, pairs, 1),
        "by_kind": {
            _name(kind, pairs): {
                "label": kind[1],
                "pairs": pairs[kind],
                "served": served[kind],
                "rate": served[kind] / pairs[kind],
            }
            for kind in sorted(pairs)
        },
        "false_hits": false_hits,
        "refused_by": dict(refused_by.most_common()),
        "mode": mode.value,
    }


def _rate(served: Counter[tuple[str, int]], pairs: Counter[tuple[str, int]], label: int) -> float | None:
    total = sum(count for (_, one), count in pairs.items() if one == label)
    return sum(count for (_, one), count in served.items() if one == label) / total if total else None


def _name(kind: tuple[str, int], pairs: Counter[tuple[str, int]]) -> str:
    """The kind's own name; with its label where one name stands for both."""
    return f"{kind[0]}:{kind[1]}" if (kind[0], 1 - kind[1]) in pairs else kind[0]


def evaluate_edits(
    prompts: Iterable[str],
    embed: _Embed,
    *,
    mode: CacheMode = CacheMode.STRICT,
    thresholds: Thresholds | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Rates over edits of unlabelled prompts: `harmful_served` should be 0, `harmless_served` 1.

    `by_kind`: edit -> {"harmful", "edits", "served"}; `false_hits`: the harmful edits that were served.
    """
    thresholds = thresholds or Thresholds()
    rng = random.Random(seed)
    edits: Counter[tuple[str, bool]] = Counter()
    served: Counter[tuple[str, bool]] = Counter()
    false_hits: list[dict[str, str]] = []
    for prompt in prompts:
        for bad, made in ((True, harmful(prompt, rng)), (False, harmless(prompt, rng))):
            for kind, changed in made:
                edits[kind, bad] += 1
                if outcome(prompt, changed, embed, mode=mode, thresholds=thresholds).served:
                    served[kind, bad] += 1
                    if bad:
                        false_hits.append({"kind": kind, "a": prompt, "b": changed})
    return {
        "harmful_served": _share(served, edits, True),
        "harmless_served": _share(served, edits, False),
        "by_kind": {
            kind: {"harmful": bad, "edits": edits[kind, bad], "served": served[kind, bad]}
            for kind, bad in sorted(edits)
        },
        "false_hits": false_hits,
    }


def _share(served: Counter[tuple[str, bool]], edits: Counter[tuple[str, bool]], bad: bool) -> float | None:
    total = sum(count for (_, one), count in edits.items() if one is bad)
    return sum(count for (_, one), count in served.items() if one is bad) / total if total else None
