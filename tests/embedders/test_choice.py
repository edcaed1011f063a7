"""Which embedder a name chooses, and how it is served."""

import pytest

from optimizer.core.errors import ConfigurationError
from optimizer.embedders.ollama import OllamaEmbedder
from optimizer.embedders.prepared import PreparedEmbedder
from optimizer.embedding import default_embedder, embedder, for_serving, model_on_ollama


def test_the_default_is_served_as_it_is():
    assert embedder() is embedder("wordllama") is for_serving("wordllama") is default_embedder()


async def test_a_slow_one_is_served_prepared_under_its_own_name():
    chosen = for_serving("ollama:nomic-embed-text", ollama_url="http://127.0.0.1:9")
    assert isinstance(chosen, PreparedEmbedder) and chosen.name == "ollama:nomic-embed-text"
    await chosen.close()


def test_ollama_models_are_named_behind_the_colon():
    chosen = embedder("ollama:all-minilm:latest", ollama_url="http://127.0.0.1:9")
    assert isinstance(chosen, OllamaEmbedder) and chosen.model == "all-minilm"


@pytest.mark.parametrize("name", ["", "bge", "ollama", "ollama:", "Wordllama"])
def test_an_unknown_name_is_told_what_there_is(name):
    with pytest.raises(ConfigurationError, match="ollama:"):
        embedder(name)


def test_only_ollamas_take_a_model_there():
    assert model_on_ollama("ollama:a:7b") == "a:7b"
    assert model_on_ollama("wordllama") == model_on_ollama("minilm") == ""


@pytest.mark.slow
async def test_minilm_is_served_prepared():
    chosen = for_serving("minilm")
    assert await chosen.prepare(["What is a port?"]) == ""
    assert chosen(["What is a port?"]).shape == (1, 384)
    await chosen.close()
