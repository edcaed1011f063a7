"""The cache's figures on labelled pairs and on edits of prompts.

The sample files are our own; with NARROWGAUGE_QUALITY_DATA set to a folder of the formats of docs/evaluation.md the
targets of the development data are checked too.
"""

import json
import os
import random
from pathlib import Path

import pytest

from optimizer.core.request import CacheMode
from optimizer.core.thresholds import Thresholds, changed
from optimizer.embedding import WordllamaEmbedder
from optimizer.evaluation.cache import evaluate, evaluate_edits, outcome
from optimizer.evaluation.mutations import harmful, harmless, sample

HERE = Path(__file__).parent / "data"
DATA = os.environ.get("NARROWGAUGE_QUALITY_DATA")
PROMPTS = (HERE / "prompts.txt").read_text().splitlines()

# file, least recall, most false hits, least recall by kind (issue 4)
TARGETS = [
    (HERE / "cache_own_sample.jsonl", 0.72, 0.0, {"mech_": 0.97}),
    (HERE / "cache_template_sample.jsonl", 0.72, 0.0, {}),
]
PROMPT_SETS = [("own prompts", PROMPTS)]
if DATA:
    TARGETS += [
        (Path(DATA) / "cache_own_dev.jsonl", 0.72, 0.0, {"mech_": 0.97, "hard_pos": 0.35}),
        (Path(DATA) / "cache_template_dev.jsonl", 0.72, 0.0, {}),
    ]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if DATA:
    texts = []
    for name, column in (
        ("route_routellm", "prompt"),
        ("route_tiers", "prompt"),
        ("compress", "text"),
        ("cache_qqp", "a"),
    ):
        texts += sample([row[column] for row in rows(Path(DATA) / f"{name}_dev.jsonl")], 100)
    PROMPT_SETS.append(("real prompts", texts))


@pytest.fixture(scope="module")
def embed() -> WordllamaEmbedder:
    return WordllamaEmbedder()


@pytest.mark.parametrize(("path", "recall", "false_hits", "kinds"), TARGETS, ids=[t[0].stem for t in TARGETS])
def test_labelled_pairs_reach_their_targets(embed, path, recall, false_hits, kinds):
    found = evaluate(rows(path), embed)
    assert found["false_hit_rate"] <= false_hits, found["false_hits"]
    assert found["recall"] >= recall, found["refused_by"]
    for prefix, least in kinds.items():
        for kind, figures in found["by_kind"].items():
            assert not kind.startswith(prefix) or figures["rate"] >= least, kind


@pytest.mark.parametrize(("name", "prompts"), PROMPT_SETS, ids=[name for name, _ in PROMPT_SETS])
def test_edits_that_change_the_meaning_are_refused_and_harmless_ones_served(embed, name, prompts):
    found = evaluate_edits(prompts, embed)
    assert found["harmful_served"] <= 0.005, found["false_hits"]
    assert found["harmless_served"] >= 0.95, found["by_kind"]


def test_the_figures_are_counted_as_defined(embed):
    pairs = [
        {"a": "What is a port?", "b": "what is a port", "label": 1, "kind": "same"},
        {"a": "What is a port?", "b": "Who sells boats?", "label": 1, "kind": "wrongly labelled"},
        {"a": "What is a port?", "b": "What is a port?", "label": 0, "kind": "wrongly labelled"},
        {"a": "Use port 1.", "b": "Use port 2.", "label": 0, "kind": "number"},
    ]
    found = evaluate(pairs, embed)
    assert (found["recall"], found["false_hit_rate"]) == (0.5, 0.5)
    assert found["by_kind"]["wrongly labelled:0"] == {"label": 0, "pairs": 1, "served": 1, "rate": 1.0}
    assert found["by_kind"]["wrongly labelled:1"]["served"] == 0
    assert len(found["false_hits"]) == 1
    assert sum(found["refused_by"].values()) == 1
    json.dumps(found)


def test_rates_without_pairs_are_none(embed):
    assert evaluate([], embed)["recall"] is None
    assert evaluate([], embed)["false_hit_rate"] is None
    assert evaluate_edits([], embed)["harmful_served"] is None


def test_the_floor_of_the_mode_decides_too(embed):
    pair = ("How do I sort a list in Rust?", "What is the best way to sort lists in Rust?")
    strict = Thresholds()
    assert outcome(*pair, embed, mode=CacheMode.STRICT, thresholds=strict).served
    higher = changed(strict, {"cache_similarity_strict": 1.0})
    assert outcome(*pair, embed, mode=CacheMode.STRICT, thresholds=higher).refused_by == "similarity"


class TestMutations:
    def test_every_kind_of_harmful_edit_occurs_in_the_sample(self):
        kinds = {kind for prompt in PROMPTS for kind, _ in harmful(prompt, random.Random(1))}
        assert kinds >= {
            "number", "spelled_number", "unit", "identifier", "path", "negation", "direction", "roles", "entity",
            "subject_object", "noun", "antonym", "question", "quantity", "verb",
        }  # fmt: skip

    def test_an_edit_always_changes_the_text(self):
        for prompt in PROMPTS:
            for _, changed_prompt in [*harmful(prompt, random.Random(2)), *harmless(prompt, random.Random(2))]:
                assert changed_prompt != prompt

    def test_the_same_seed_gives_the_same_edits(self):
        assert list(harmful(PROMPTS[0], random.Random(3))) == list(harmful(PROMPTS[0], random.Random(3)))
        assert sample(PROMPTS, 5, seed=4) == sample(PROMPTS, 5, seed=4)
