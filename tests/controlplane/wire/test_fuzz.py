"""Arbitrary JSON to every POST endpoint: never a 5xx, always the protocol's shape."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.wire import WireApp
from optimizer.core.request import AgentProfile
from tests.asgi_client import Client
from tests.fake_engine import FakeEngine

PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
]
WORDS = [
    "auto",
    "tinyllama",
    "user",
    "assistant",
    "tool",
    "function",
    "json",
    "text",
    "image_url",
    "0",
    "",
    "5m",
    "\x00",
    "\ud800",
]
FIELDS = [
    "model",
    "name",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "tool_calls",
    "function",
    "arguments",
    "id",
    "tools",
    "parameters",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "stream",
    "stream_options",
    "include_usage",
    "options",
    "temperature",
    "num_ctx",
    "num_predict",
    "stop",
    "seed",
    "n",
    "logprobs",
    "max_tokens",
    "keep_alive",
    "format",
    "think",
    "images",
    "prompt",
    "system",
    "suffix",
    "raw",
    "context",
    "input",
    "encoding_format",
    "dimensions",
    "truncate",
    "tool_call_id",
    "tool_name",
    "thinking",
    "reasoning_content",
    "reasoning_effort",
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
    | st.sampled_from([10**400, -(2**70), 1e308])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional=dict.fromkeys(("content", "tool_calls", "images", "tool_call_id", "thinking"), values),
    ),
    min_size=1,
    max_size=3,
)
good = {"model": "auto", "prompt": "a", "input": "a", "messages": [{"role": "user", "content": "a"}]}
bodies = values | st.dictionaries(st.sampled_from(FIELDS), values, max_size=6).map(lambda more: {**good, **more})
bodies |= messages.map(lambda some: {**good, "messages": some})


def _encoded(body: object) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


def _agent(key: str) -> AgentProfile:
    return AgentProfile("scribe-01", "default")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PATHS), body=bodies)
def test_arbitrary_json_is_never_our_fault(path, body):
    answer = asyncio.run(Client(WireApp(FakeEngine(), _agent, "0.1.0"))("POST", path, _encoded(body)))
    assert answer.status in (200, 400, 404), answer.body
    if answer.status != 200:
        error = answer.json()["error"]
        assert isinstance(error["message"] if path.startswith("/v1") else error, str)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=40), path=st.sampled_from(PATHS))
def test_arbitrary_bytes_are_400(data, path):
    answer = asyncio.run(Client(WireApp(FakeEngine(), _agent, "0.1.0"))("POST", path, data))
    assert answer.status in (400, 404)


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(
        ["authorization", "x-narrowgauge-deadline", "x-narrowgauge-template", "cache-control", "origin"]
    ),
    value=st.text(st.characters(max_codepoint=255), max_size=30),
)
def test_arbitrary_header_values_are_never_our_fault(name, value):
    body = {"model": "auto", "messages": [{"role": "user", "content": "a"}]}
    answer = asyncio.run(
        Client(WireApp(FakeEngine(), _agent, "0.1.0"))("POST", "/api/chat", body, headers={name: value})
    )
    assert answer.status in (200, 400, 401)
