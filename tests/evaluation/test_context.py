"""The context figures: needed messages and facts kept, on our samples and on the labelled data if given."""

import json
import os
from pathlib import Path

import pytest

from optimizer.embedding import default_embedder
from optimizer.evaluation.context import evaluate
from optimizer.tokens import LlamaTokenCounter

COUNT = LlamaTokenCounter()
SAMPLE = Path(__file__).parent / "data" / "context_sample.jsonl"
QUALITY = os.environ.get("NARROWGAUGE_QUALITY_DATA")


def labelled(pattern: str) -> list[Path]:
    return (sorted(Path(QUALITY).glob(pattern)) if QUALITY else []) or [SAMPLE]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("embed", [None, default_embedder()], ids=["words only", "wordllama"])
def test_our_samples_keep_the_message_and_the_fact(embed):
    result = evaluate(rows(SAMPLE), COUNT, embed, budgets=(60, 90))
    assert (result["kept"], result["kept_facts"], result["over"]) == (1.0, 1.0, 0)
    assert result["by_budget"] == {"60": {"blind": 1.0, "asked": 1.0}, "90": {"blind": 1.0, "asked": 1.0}}
    assert (result["conversations"], result["facts"]) == (1, 1)


def test_a_file_of_one_kind_leaves_the_other_figures_empty():
    conversation, prompt = rows(SAMPLE)
    assert evaluate([prompt], COUNT, None)["kept"] is None
    assert evaluate([conversation], COUNT, None)["by_budget"]["500"] == {"blind": None, "asked": None}


@pytest.mark.slow
@pytest.mark.parametrize("path", labelled("window_*.jsonl"), ids=lambda path: path.name)
def test_the_needed_message_is_kept(path):
    result = evaluate(rows(path), COUNT, default_embedder())
    assert result["kept"] >= 0.86 and result["over"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", labelled("needle_*.jsonl"), ids=lambda path: path.name)
def test_hidden_facts_survive_the_cut(path):
    result = evaluate(rows(path), COUNT, default_embedder())
    small, large = result["by_budget"]["500"], result["by_budget"]["1000"]
    assert small["blind"] >= 0.70 and large["blind"] >= 0.92
    assert min(small["asked"], large["asked"]) >= 0.98 and result["over"] == 0
