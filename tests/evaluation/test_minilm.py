"""The figures with the stronger embedder, on our samples and on the labelled data if given."""

import json
import os
from pathlib import Path

import pytest

from optimizer.embedders.minilm import MinilmEmbedder
from optimizer.embedding import default_embedder
from optimizer.evaluation import cache, context
from optimizer.tokens import LlamaTokenCounter

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parent / "data"
QUALITY = os.environ.get("NARROWGAUGE_QUALITY_DATA")
CONVERSATIONS = 40  # of the file: half a minute of vectors


def labelled(pattern: str, sample: str) -> list[dict]:
    found = sorted(Path(QUALITY).glob(pattern)) if QUALITY else []
    return [json.loads(line) for path in found or [SAMPLES / sample] for line in path.read_text().splitlines()]


class Remembering(MinilmEmbedder):
    """The same vectors; each text is worked out once, as when serving."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, object] = {}

    def __call__(self, texts):
        for text in texts:
            if text not in self._known:
                self._known[text] = super().__call__([text])[0]
        return [self._known[text] for text in texts]


@pytest.fixture(scope="module")
def embed() -> Remembering:
    return Remembering()


def test_the_needed_message_is_kept_more_often_than_with_the_default(embed):
    rows = labelled("window_*.jsonl", "context_sample.jsonl")[:CONVERSATIONS]
    result = context.evaluate(rows, LlamaTokenCounter(), embed, embed_lines=default_embedder())
    assert result["kept"] >= 0.95 and result["over"] == 0


@pytest.mark.parametrize("name", ["own", "template"])
def test_the_cache_is_as_safe_and_finds_as_much(embed, name):
    found = cache.evaluate(labelled(f"cache_{name}_*.jsonl", f"cache_{name}_sample.jsonl"), embed)
    assert found["false_hit_rate"] == 0.0, found["false_hits"]
    assert found["recall"] >= 0.72, found["refused_by"]
