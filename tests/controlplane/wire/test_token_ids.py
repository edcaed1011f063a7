"""Token ids on /v1/embeddings, with and without a decoder installed."""

import pytest

from controlplane.wire import token_ids

IDS = {"model": "auto", "input": [[72, 105], [33]]}


@pytest.fixture
def ascii_decoder(monkeypatch):
    """A vocabulary in which an id is a character's code."""
    monkeypatch.setattr(token_ids, "decoder", lambda: lambda ids: "".join(map(chr, ids)))


async def test_ids_become_text_where_they_can_be_decoded(client, engine, ascii_decoder):
    assert (await client.post("/v1/embeddings", IDS)).status == 200
    assert (await client.post("/v1/embeddings", {"model": "auto", "input": [72, 105]})).status == 200
    assert [request.inputs for request in engine.requests] == [("Hi", "!"), ("Hi",)]


async def test_without_a_decoder_the_error_says_what_to_set(client, monkeypatch):
    monkeypatch.setattr(token_ids, "decoder", lambda: None)
    answer = await client.post("/v1/embeddings", IDS)
    assert answer.status == 400 and "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize("ids", [[-1], [100_256], [[1], []], [[1], "a"], [1, "a"], [1.5], [[True]], [None], [{}], [0]])
async def test_what_is_no_token_id_is_400(client, engine, ascii_decoder, ids):
    answer = await client.post("/v1/embeddings", {"model": "auto", "input": ids})
    assert answer.status == 400 and answer.json()["error"]["param"] == "input"
    assert not engine.requests


async def test_too_many_rows_are_400(client, ascii_decoder):
    answer = await client.post("/v1/embeddings", {"model": "auto", "input": [[72]] * 2049})
    assert answer.status == 400 and "at most 2048" in answer.json()["error"]["message"]
