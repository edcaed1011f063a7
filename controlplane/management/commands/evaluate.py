"""`manage.py evaluate KIND --data FILE`: how good a policy is, recomputed on labelled data.

Rule: thin: rows in, figures out as a table or JSON; needs no database and no backend. What is measured and how:
optimizer/evaluation/ and docs/evaluation.md. Must not know: policies.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from controlplane.agents_seed import USE_CASES
from controlplane.management.examples import CommandWithExamples
from optimizer import embedding
from optimizer.core.errors import ConfigurationError, NarrowgaugeError
from optimizer.core.request import AgentProfile, CacheMode
from optimizer.core.tiers import CompressionLevel
from optimizer.evaluation import cache, compression, context, routing
from optimizer.ports import Embedder
from optimizer.tokens import LlamaTokenCounter

EXAMPLES = """examples:
  manage.py evaluate cache --data pairs.jsonl                       labelled pairs: a, b, label, kind
  manage.py evaluate cache --data pairs.jsonl --mode light          under the light guard
  manage.py evaluate compression --data prompts.jsonl --json        texts: text, kind
  manage.py evaluate context --data talks.jsonl                     messages, question, gold; or text, facts
  manage.py evaluate routing --data a.jsonl b.jsonl                 prompt, task, scores {model: 0..1}
  manage.py evaluate routing --data a.jsonl --pair small:large      these two models only
"""
PROGRESS_AFTER_S = 2.0
LONGEST_FILE_BYTES = 256 * 1024 * 1024
LISTED = 10  # entries of a list that the table shows
NEEDED = {  # kind -> the sets of columns, one of which every row must have
    "cache": ({"a": str, "b": str, "label": int},),
    "compression": ({"text": str},),
    "context": ({"messages": list, "question": str, "gold": int}, {"text": str, "facts": list}),
    "routing": ({"prompt": str, "scores": dict},),
}


class Command(CommandWithExamples):
    help = "Measure the semantic cache, compression, context or model selection on labelled data (JSON lines)."
    examples = EXAMPLES
    requires_system_checks = ()  # no database, no backend

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("kind", choices=NEEDED, metavar="KIND", help=", ".join(NEEDED))
        add("--data", type=Path, nargs="+", action="extend", required=True, metavar="FILE", help="one row a line")
        add(
            "--embedder",
            default=settings.EMBEDDER,
            metavar="NAME",
            help=f"cache, context: {embedding.CHOICES} (default: %(default)s)",
        )
        add("--ollama-url", default=embedding.OLLAMA_URL, metavar="URL", help="of ollama:MODEL (default: %(default)s)")
        add("--json", action="store_true", help="JSON instead of the table")
        modes = [CacheMode.STRICT.value, CacheMode.LIGHT.value]
        add("--mode", choices=modes, default=modes[0], help="cache: the guard (default: strict)")
        levels = [level.value for level in CompressionLevel]
        add("--level", choices=levels, default=levels[0], help=f"compression: how far (default: {levels[0]})")
        add("--pair", action="append", default=[], metavar="WEAK:STRONG", help="routing: two models; may be repeated")
        add(
            "--outcomes",
            type=int,
            default=routing.OUTCOMES,
            help=f"routing: judged answers per agent and tier (default: {routing.OUTCOMES})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._began, self._told = time.monotonic(), 0.0
        try:
            paths = dict.fromkeys(options["data"])
            alike = len({path.stem for path in paths}) < len(paths)
            sets = {str(path) if alike else path.stem: _rows(path, options["kind"]) for path in paths}
            found = self._measured(options, sets)
        except NarrowgaugeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) if options["json"] else table(found))

    def _measured(self, options: dict[str, Any], sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        rows = self._watched([row for rows in sets.values() for row in rows])
        match options["kind"]:
            case "cache":
                return cache.evaluate(rows, _embedder(options), mode=CacheMode(options["mode"]))
            case "compression":
                return compression.evaluate(rows, LlamaTokenCounter(), CompressionLevel(options["level"]))
            case "context":
                lines = embedding.default_embedder()  # as served: texts are cut by the default one
                return context.evaluate(rows, LlamaTokenCounter(), _embedder(options), embed_lines=lines)
            case _:
                if not 1 <= options["outcomes"] <= 1000:
                    raise ConfigurationError("--outcomes must be from 1 to 1000")
                found = routing.evaluate(
                    sets, pairs=_pairs(options["pair"]), outcomes=options["outcomes"], progress=self._progress
                )
                prompts = [row["prompt"] for rows in sets.values() for row in rows]
                return {**found, "shares": routing.tier_shares(prompts, _agents())}

    def _watched(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for done, row in enumerate(rows):
            yield row
            self._progress(done + 1, len(rows))

    def _progress(self, done: int, total: int) -> None:
        """A line now and then on stderr, once it takes long enough for somebody to wonder."""
        now = time.monotonic()
        if now - self._began > PROGRESS_AFTER_S and now - self._told > 1.0:
            self._told = now
            self.stderr.write(f"{done} of {total}, about {(now - self._began) / done * (total - done):.0f} s to go")


def _embedder(options: dict[str, Any]) -> Embedder:
    return embedding.embedder(options["embedder"], ollama_url=options["ollama_url"])


def table(found: Mapping[str, Any]) -> str:
    """Figures as text: single ones first, then a block for each group."""
    single = {name: value for name, value in found.items() if not isinstance(value, Mapping | list)}
    lines = [f"{name:30} {_cell(value)}" for name, value in single.items()]
    for name, value in found.items():
        if isinstance(value, list) and value:
            lines += ["", f"{name}: {len(value)}", *(f"  {_cell(entry)}" for entry in value[:LISTED])]
            lines += ["  ..."] if len(value) > LISTED else []
        elif isinstance(value, Mapping) and value:
            lines += ["", name, *_block(value)]
    return "\n".join(lines)


def _block(values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values))
    if not all(isinstance(value, Mapping) for value in values.values()):
        return [f"  {name:{width}}  {_cell(value)}" for name, value in values.items()]
    # Groups within a row (a set's figures cold) are for the JSON: a table of three levels is unreadable.
    single = [c for row in values.values() for c, value in row.items() if not isinstance(value, Mapping)]
    columns = list(dict.fromkeys(single))
    rows = [[name, *(_cell(row.get(column, "")) for column in columns)] for name, row in values.items()]
    widths = [max(map(len, column)) for column in zip(["", *columns], *rows, strict=True)]
    head = "  ".join(f"{name:>{w}}" for name, w in zip(["", *columns], widths, strict=True))
    body = ["  ".join([f"{row[0]:{widths[0]}}", *_right(row[1:], widths[1:])]) for row in rows]
    return [f"  {line}".rstrip() for line in (head, *body)]


def _right(cells: list[str], widths: list[int]) -> list[str]:
    return [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows(path: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a JSON lines file. Raises ConfigurationError naming file and line."""
    try:
        if path.stat().st_size > LONGEST_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {LONGEST_FILE_BYTES // 2**20} MB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
    rows = [_row(line, f"{path}, line {n}", kind) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise ConfigurationError(f"{path} has no rows")
    return rows


def _row(line: str, where: str, kind: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ConfigurationError(f"{where} must be a JSON object")
    if not any(_has(row, columns) for columns in NEEDED[kind]):
        wanted = " or ".join(", ".join(f'"{c}" ({t.__name__})' for c, t in columns.items()) for columns in NEEDED[kind])
        raise ConfigurationError(
            f"{where}: a row for {kind} needs {wanted}; this one has {', '.join(row) or 'nothing'}"
        )
    for column, (sound, what) in _INSIDE.items():
        if any(column in columns for columns in NEEDED[kind]) and column in row and not sound(row):
            raise ConfigurationError(f"{where}: {what}")
    return row


def _all_have(entries: Any, *names: str) -> bool:
    return isinstance(entries, list) and all(isinstance(e, dict) and e.keys() >= set(names) for e in entries)


def _are_scores(scores: Any) -> bool:
    if not (isinstance(scores, dict) and scores):
        return False
    return all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores.values())


# What the evaluations rely on inside a column: column -> check of the row, sentence.
_INSIDE: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "label": (lambda row: row["label"] in (0, 1), "label must be 0 or 1"),
    "messages": (lambda row: _all_have(row["messages"], "role", "content"), "messages need role and content"),
    "gold": (lambda row: 0 <= row["gold"] < len(row["messages"]), "gold must be the number of a message, from 0"),
    "facts": (lambda row: _all_have(row["facts"], "says", "asks"), "facts need says and asks"),
    "scores": (lambda row: _are_scores(row["scores"]), "scores must be numbers from 0 to 1, of at least one model"),
}


def _has(row: dict[str, Any], columns: dict[str, type]) -> bool:
    return all(isinstance(row.get(column), kind) for column, kind in columns.items())


def _pairs(given: list[str]) -> list[tuple[str, str]]:
    """ "weak:strong", where the names may hold colons themselves: `qwen2.5:7b::qwen2.5:14b`."""
    pairs = []
    for text in given:
        weak, separator, strong = text.partition("::" if "::" in text else ":")
        if not (weak and separator and strong):
            raise ConfigurationError(f"--pair wants WEAK:STRONG (or WEAK::STRONG), not '{text}'")
        pairs.append((weak, strong))
    return pairs


def _agents() -> list[AgentProfile]:
    """The seeded ones."""
    return [
        AgentProfile(slug=agent.name, tier=case.tier, expertise_level=agent.expertise_level)
        for case in USE_CASES
        for agent in case.agents
    ]
