"""The compression figures: what counts as damage, and the targets, on our samples and on the labelled data if given."""

import json
import os
from pathlib import Path

import pytest

from optimizer.core.tiers import CompressionLevel
from optimizer.evaluation.compression import damage, evaluate
from optimizer.tokens import LlamaTokenCounter

COUNT = LlamaTokenCounter()
SAMPLE = Path(__file__).parent / "data" / "compress_sample.jsonl"
QUALITY = os.environ.get("NARROWGAUGE_QUALITY_DATA")
LABELLED = sorted(Path(QUALITY).glob("compress_*.jsonl")) if QUALITY else []


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("original", "sent", "problem"),
    [
        ("Wait 30 s.", "Wait.", "number lost: '30'"),
        ("Wait.", "Wait 5.", "number invented: '5'"),
        ("Do not go.", "Do go.", "binding word lost: 'not'"),
        ("Use `ls -l`.", "Use ls.", "inline code lost: '`ls -l`'"),
        ("See https://a.example/x", "See it", "url lost: 'https://a.example/x'"),
        ('Say "hi there".', "Say hi.", "quotation lost: '\"hi there\"'"),
        ("Set max_size.", "Set size.", "identifier lost: 'max_size'"),
        ("tell Marco that", "tell him that", "name lost: 'Marco'"),
        ("```\na = 1\n```\n", "```\na=1\n```\n", "fenced block changed"),
        ('```json\n{"a": 1.0}\n```\n', '```json\n{"a":1}\n```\n', "fenced block changed"),
        ("```\na\n```\n", "a\n", "fenced blocks: 1 became 0"),
    ],
)
def test_damage_is_found(original, sent, problem):
    assert any(problem in found for found in damage(original, sent))


def test_layout_politeness_and_folding_are_no_damage():
    assert damage('Please look:\n\n```json\n{"a": 1.0}\n```\n', 'Look:\n```json\n{"a":1.0}\n```\n') == []
    assert damage("| a   | 1 |", "|a|1|") == []
    log = "2026-03-01 10:00:01 E x\n2026-03-01 10:00:05 E x"
    assert damage(log, "2026-03-01 10:00:01 E x [2x, also 10:00:05]") == []
    assert damage(log, "2026-03-01 10:00:01 E x [2x]") != []


@pytest.mark.parametrize("level", list(CompressionLevel))
def test_our_samples_are_never_damaged_and_never_longer(level):
    result = evaluate(rows(SAMPLE), COUNT, level)
    assert (result["damaged"], result["longer"], result["not_idempotent"]) == (0, 0, 0), result["problems"]


def test_our_samples_save_what_is_promised():
    result = evaluate(rows(SAMPLE), COUNT)
    saved = {kind: figures["saved"] for kind, figures in result["by_kind"].items()}
    assert saved["chat"] >= 0.1 and saved["json"] >= 0.2 and saved["logs"] >= 0.2 and saved["agent"] >= 0.025
    assert result["saved"] >= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("level", list(CompressionLevel))
@pytest.mark.parametrize("path", LABELLED or [SAMPLE], ids=lambda path: path.name)
def test_labelled_data_meet_the_targets(path, level):
    result = evaluate(rows(path), COUNT, level)
    assert (result["damaged"], result["longer"], result["not_idempotent"]) == (0, 0, 0), result["problems"]
    if level is CompressionLevel.AGGRESSIVE and path is not SAMPLE:
        targets = {"json": 0.31, "logs": 0.25, "chat": 0.10, "agent": 0.025}
        assert result["saved"] >= 0.10
        assert all(result["by_kind"][kind]["saved"] >= target for kind, target in targets.items())


def test_no_rows_give_no_figures_and_no_error():
    assert evaluate([], COUNT)["saved"] == 0.0
