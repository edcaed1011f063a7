"""Relevance: pure scores of texts against a question, and of texts among themselves."""

import numpy as np
import pytest

from optimizer.core.relevance import bm25, cosine, overlap, relevance, telling
from optimizer.embedding import default_embedder

TEXTS = ["The crane is serviced every 40 days.", "Lunch is at noon.", "Berth 7 is closed to tankers."]
EMBED = default_embedder()


class Contextual:
    """An embedder that is not static: it knows one pair of texts."""

    name = "transformer"
    max_tokens = 512

    def __call__(self, texts):
        return np.asarray([[1.0, 0.0] if "lunch" in t.lower() or "eat" in t else [0.0, 1.0] for t in texts], np.float32)


def test_bm25_finds_the_text_with_the_rare_words():
    assert int(np.argmax(bm25("when is berth 7 closed?", TEXTS))) == 2


def test_bm25_of_no_shared_word_is_zero():
    assert not bm25("zebra", TEXTS).any()


def test_cosine_is_the_dot_product_of_unit_vectors():
    assert cosine(np.asarray([1.0, 0.0], np.float32), np.eye(2, dtype=np.float32)).tolist() == [1.0, 0.0]


def test_overlap_finds_a_paraphrase_without_a_shared_word():
    assert int(np.argmax(overlap("When do we eat our midday meal?", TEXTS, EMBED))) == 1


@pytest.mark.parametrize("embed", [None, EMBED], ids=["words only", "wordllama"])
def test_relevance_finds_the_answer(embed):
    assert int(np.argmax(relevance("How often is the crane serviced?", TEXTS, embed))) == 0


def test_another_embedder_is_trusted_with_whole_sentences():
    assert int(np.argmax(relevance("What do we eat?", TEXTS, Contextual()))) == 1


@pytest.mark.parametrize("embed", [None, EMBED], ids=["words only", "wordllama"])
@pytest.mark.parametrize("texts", [[], [""], ["", "..."]])
def test_nothing_to_score_is_no_error(texts, embed):
    assert relevance("What?", texts, embed).shape == (len(texts),)
    assert relevance("", texts, embed).shape == (len(texts),)
    assert telling(texts, embed).shape == (len(texts),)
    assert np.isfinite(relevance("What?", texts, embed)).all()


def test_the_line_unlike_the_others_says_most():
    lines = ["- Greet every caller warmly", "- Thank every caller warmly", "Valve 9 must stay shut.", "# Callers"]
    assert int(np.argmax(telling(lines, EMBED))) == 2
