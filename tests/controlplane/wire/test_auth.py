"""Keys: what is accepted, what is refused, and that refusals say nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.wire.auth import authenticate
from controlplane.wire.errors import HttpError
from optimizer.core.request import AgentProfile

AGENT = AgentProfile("scribe-01", "default")


def agent_for(key: str) -> AgentProfile | None:
    return AGENT if key == "good-key" else None


@pytest.mark.parametrize("header", ["Bearer good-key", "bearer good-key", "BEARER good-key", "Bearer  good-key"])
def test_bearer_in_any_case_is_accepted(header):
    assert authenticate(header, agent_for) is AGENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        "good-key",
        "Bearer",
        "Bearer ",
        "Basic good-key",
        "Bearer good-ke",
        "Bearer good-keyy",
        "Bearer good-key\x00",
        "Bearer gööd-key",
        "Bearer good-key, Bearer good-key",
        "Bearer " + "k" * 100_000,
    ],
)
def test_anything_else_is_refused_the_same_way(header):
    with pytest.raises(HttpError) as refused:
        authenticate(header, agent_for)
    assert refused.value.problem.status == 401
    assert "good-key" not in refused.value.problem.message


@given(st.text(max_size=40))
def test_no_header_crashes_or_passes(header):
    with pytest.raises(HttpError):
        authenticate(header, agent_for)


async def test_a_key_in_the_query_string_is_no_key(client):
    assert (await client.get("/v1/models", key="", headers={"x-api-key": "good-key"})).status == 401


async def test_the_request_belongs_to_the_keys_agent(client, engine):
    await client.post("/api/chat", {"model": "auto", "messages": [{"role": "user", "content": "a"}]})
    assert engine.requests[0].agent == "scribe-01"
