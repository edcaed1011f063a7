"""The local embedder: unit vectors from the installed package, no network, fast."""

import socket
import sys

import numpy as np
import pytest

from optimizer import embedding
from optimizer.core.errors import ConfigurationError
from optimizer.embedding import WordllamaEmbedder


@pytest.fixture(scope="module")
def embed() -> WordllamaEmbedder:
    return WordllamaEmbedder()


def test_gives_one_unit_vector_per_text(embed):
    vectors = embed(["What is a port?", "Merge develop into main."])
    assert vectors.shape == (2, 256)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


def test_similar_questions_are_nearer_than_different_ones(embed):
    port, rewording, other = embed(
        ["How do I expose port 8080?", "What is the way to publish port 8080?", "Translate this poem into German."]
    )
    assert port @ rewording > port @ other + 0.2


def test_the_same_text_gives_the_same_vector_alone_and_in_company(embed):
    alone = embed(["What is a port?"])[0]
    assert np.array_equal(alone, embed(["A much longer text about something else", "What is a port?"])[1])


def test_case_and_spacing_do_not_matter(embed):
    a, b = embed(["What is a PORT?", "  what  is a\nport?"])
    assert np.array_equal(a, b)


def test_a_text_without_tokens_gives_zeros_and_no_texts_give_no_rows(embed):
    assert not embed([""]).any()
    assert embed([]).shape == (0, 256)


def test_only_the_window_counts(embed):
    text = "port " * (embed.max_tokens + 50)
    assert np.allclose(embed([text]), embed([text + "violin " * 20]))


def test_loads_without_network_and_without_importing_wordllama(monkeypatch):
    """wordllama's own loader downloads and its import configures the root logger."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the embedder must not open sockets")

    monkeypatch.setattr(socket, "socket", refuse)
    before = "wordllama" in sys.modules
    WordllamaEmbedder()
    assert ("wordllama" in sys.modules) == before


def test_a_missing_package_is_a_sentence_to_act_on(monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install wordllama"):
        WordllamaEmbedder()


def test_missing_files_are_a_sentence_to_act_on(monkeypatch):
    monkeypatch.setattr(embedding, "WEIGHTS", "weights/none.safetensors")
    with pytest.raises(ConfigurationError, match="lacks weights/none"):
        WordllamaEmbedder()
