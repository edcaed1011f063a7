"""How much compression saves and what it breaks, recomputed on any labelled file.

Rule: `damage` is written independently of the guards in optimizer/core: it compares whole documents, with its own
patterns, so that a fault in the guards cannot hide itself. Folded logs are unfolded first and then held to the same
standard as everything else.
Must not know: how compression works, where files lie.

What counts as damage (each by multiplicity, in the whole text): a number, URL, e-mail address, inline code,
quotation, template variable, path, identifier, word of negation or obligation, or a capitalised name within a
sentence that is missing; a number that was not there before; a fenced block that is neither byte-equal nor, as JSON,
equal in value (numbers as spelled, keys in order) nor, as a log, equal line for line once unfolded; a log line lost.
"""

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any

from optimizer.core.compression import compress
from optimizer.core.logfold import unfold
from optimizer.core.tiers import CompressionLevel

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)([^\n]*)\n(.*?)^ {0,3}\1`*~*[^\S\n]*$", re.MULTILINE | re.DOTALL)
_FACTS = {
    "number": re.compile(r"\d+(?:[.,:/-]\d+)*"),
    "url": re.compile(r"\b[a-z]+://[^\s)\]>\"']+"),
    "address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "inline code": re.compile(r"`[^`\n]+`"),
    "quotation": re.compile(r"\"[^\"\n]+\"|“[^”\n]+”"),
    "variable": re.compile(r"\$[A-Z_][A-Z_\d]*\b|\{\{.*?\}\}|<[a-z][\w-]*>"),
    "path": re.compile(r"(?<![\w/])~?\.{0,2}/[\w.-]+(?:/[\w.-]+)*|\b[\w-]+(?:/[\w.-]+)+"),
    "identifier": re.compile(r"\b(?:\w+_\w+|[a-z]+[A-Z]\w*|[A-Z]{2,}\w*|[A-Za-z]+\d\w*|\w+\.\w+\b)"),
    "binding word": re.compile(
        r"\b(?:not|no|never|none|nor|cannot|without|unless|except|only|must|should|shall|may|always|until|"
        r"at least|at most|exactly|more than|less than|\w+n['’]t)\b",
        re.IGNORECASE,
    ),
    "name": re.compile(r"(?<=[a-z] )[A-Z][a-z]+\b"),
}
# Emphasis and table padding around a word are no part of it.
_DECORATION = re.compile(r"\*\*|__(?=\w)|(?<=\w)__")


def damage(original: str, sent: str) -> list[str]:
    """What of the original is not in what is sent, or is in it without having been there; empty when sound."""
    problems: list[str] = []
    original_blocks, original_prose = _split(original)
    sent_blocks, sent_prose = _split(sent)
    if len(original_blocks) != len(sent_blocks):
        return [f"fenced blocks: {len(original_blocks)} became {len(sent_blocks)}"]
    problems += [
        f"fenced block changed: {before[:60]!r}"
        for before, after in zip(original_blocks, sent_blocks, strict=True)
        if not _same_block(before, after)
    ]
    before_text, after_text = _plain(original_prose), _plain(sent_prose)
    for name, pattern in _FACTS.items():
        before, after = Counter(pattern.findall(before_text)), Counter(pattern.findall(after_text))
        if name == "binding word":
            before, after = _lower(before), _lower(after)
        problems += [f"{name} lost: {fact!r}" for fact in before - after]
        if name == "number":
            problems += [f"number invented: {fact!r}" for fact in after - before]
    return problems


def _split(text: str) -> tuple[list[str], str]:
    """Fenced blocks, and everything else."""
    return [match[0] for match in _FENCE.finditer(text)], _FENCE.sub("\n", text)


def _plain(prose: str) -> str:
    text = _DECORATION.sub("", "\n".join(unfold(prose)))
    text = text.replace("<=", "less than or equal to").replace(">=", "greater than or equal to")
    return re.sub(r"\s*\|\s*", " | ", text)


def _lower(found: Counter[str]) -> Counter[str]:
    lowered: Counter[str] = Counter()
    for word, times in found.items():
        lowered[word.lower()] += times
    return lowered


def _same_block(before: str, after: str) -> bool:
    if before == after:
        return True
    first, second = _FENCE.match(before), _FENCE.match(after)
    if first is None or second is None or first[2] != second[2]:
        return False
    if (value := _json(first[3])) is not None:
        return bool(value == _json(second[3]))
    return Counter(unfold(first[3])) == Counter(unfold(second[3]))


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
    except ValueError:
        return None


def evaluate(
    rows: Iterable[Mapping[str, Any]],
    count: Callable[[str], int],
    level: CompressionLevel = CompressionLevel.AGGRESSIVE,
) -> dict[str, Any]:
    """Compression of rows with `text` and `kind` (compress_dev.jsonl) at one level.

    damaged, longer, not_idempotent: rows (counts). saved: mean share of a row's tokens that is saved;
    saved_of_all_tokens: the same over all rows' tokens together. by_kind: rows, saved and damaged of each kind.
    p50_ms, p95_ms: time of one `compress`, counting included. problems: up to 20 damages, for reading.
    """
    kinds: dict[str, list[tuple[float, bool]]] = {}
    times_ms: list[float] = []
    problems: list[str] = []
    before = after = longer = changed_twice = 0
    for row in rows:
        text = str(row["text"])
        started = perf_counter()
        result = compress(text, level, count)
        times_ms.append((perf_counter() - started) * 1000)
        found = damage(text, result.text)
        problems += [f"{row.get('id', len(times_ms))}: {problem}" for problem in found]
        tokens_before, tokens_after = count(text), count(result.text)  # counted here, not taken on trust
        before, after = before + tokens_before, after + tokens_after
        longer += tokens_after > tokens_before
        changed_twice += compress(result.text, level, count).text != result.text
        share = 1 - tokens_after / tokens_before if tokens_before else 0.0
        kinds.setdefault(str(row.get("kind", "")), []).append((share, bool(found)))
    everything = [entry for entries in kinds.values() for entry in entries]
    return {
        "rows": len(everything),
        "level": level.value,
        "damaged": sum(damaged for _, damaged in everything),
        "longer": longer,
        "not_idempotent": changed_twice,
        "saved": _mean([share for share, _ in everything]),
        "saved_of_all_tokens": round(1 - after / before, 4) if before else 0.0,
        "by_kind": {
            kind: {
                "rows": len(entries),
                "saved": _mean([share for share, _ in entries]),
                "damaged": sum(damaged for _, damaged in entries),
            }
            for kind, entries in sorted(kinds.items())
        },
        "p50_ms": round(statistics.median(times_ms), 2) if times_ms else 0.0,
        "p95_ms": round(sorted(times_ms)[int(len(times_ms) * 0.95)], 2) if times_ms else 0.0,
        "problems": problems[:20],
    }


def _mean(shares: list[float]) -> float:
    return round(statistics.fmean(shares), 4) if shares else 0.0
