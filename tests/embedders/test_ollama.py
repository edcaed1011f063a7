"""Embeddings by Ollama, against the stand-in server: one pinned profile, unit vectors, clear failures."""

import asyncio
import json

import httpx
import numpy as np
import pytest

from optimizer.core.errors import BackendUnavailable, ConfigurationError, ModelFileMissing
from optimizer.embedders.ollama import OllamaEmbedder
from tests.ollama_server import OllamaServer


@pytest.fixture
async def server():
    async with OllamaServer(speed=2000) as running:
        yield running


def answering(status: int, body: object) -> OllamaEmbedder:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=json.dumps(body)))
    return OllamaEmbedder("m", "http://ollama", transport=transport)


async def test_gives_one_unit_vector_per_text(server):
    vectors = await asyncio.to_thread(OllamaEmbedder("tinyllama", server.url), ["a port", "a poem", "a port"])
    assert vectors.dtype == np.float32 and len(vectors) == 3
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    assert np.array_equal(vectors[0], vectors[2])


async def test_every_call_carries_the_same_profile_and_takes_no_vram(server):
    embed = OllamaEmbedder("tinyllama", server.url + "/")
    for text in ("one", "two"):
        await asyncio.to_thread(embed, [text])
    bodies = [body for route, body in server.bodies if route == "/api/embed"]
    assert len(bodies) == 2 and bodies[0]["options"] == bodies[1]["options"]
    assert bodies[0]["options"]["num_gpu"] == 0 and bodies[0]["keep_alive"] == -1
    assert server.stats.loads["tinyllama:latest"] == 1


async def test_a_model_that_is_not_there_comes_with_the_command_that_gets_it(server):
    with pytest.raises(ModelFileMissing, match="ollama pull all-minilm"):
        await asyncio.to_thread(OllamaEmbedder("all-minilm", server.url), ["x"])


def test_nobody_there_is_a_sentence():
    with pytest.raises(BackendUnavailable, match="ollama:m does not answer"):
        OllamaEmbedder("m", "http://127.0.0.1:9")(["x"])


def test_a_refusal_is_told_in_ollamas_words():
    with pytest.raises(BackendUnavailable, match="answered 501: this model does not support embeddings"):
        answering(501, {"error": "this model does not support embeddings"})(["x"])


@pytest.mark.parametrize("body", [{}, [], {"embeddings": [[1.0]]}, {"embeddings": "no"}, {"embeddings": [[1], [1, 2]]}])
def test_an_answer_without_a_vector_for_each_text_is_a_failure(body):
    with pytest.raises(BackendUnavailable, match="no vectors"):
        answering(200, body)(["x", "y"])


def test_no_texts_need_no_call():
    assert len(OllamaEmbedder("m", "http://127.0.0.1:9")([])) == 0


@pytest.mark.parametrize(("model", "url"), [(" ", "http://a"), ("m", "localhost:11434")])
def test_an_impossible_choice_is_refused_at_once(model, url):
    with pytest.raises(ConfigurationError):
        OllamaEmbedder(model, url)


def test_vectors_of_different_models_have_different_names():
    assert OllamaEmbedder("a", "http://x").name != OllamaEmbedder("b", "http://x").name
