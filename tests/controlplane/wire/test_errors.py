"""The error tree as HTTP."""

import logging

import pytest

from controlplane.wire import WireApp
from controlplane.wire.errors import problem_of
from optimizer.core import errors
from tests.asgi_client import Client
from tests.fake_engine import FakeEngine, started

CHAT = {"model": "tinyllama", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidRequest("x", param="p"), 400, "invalid_request"),
        (errors.ModelNotFound("m"), 404, "model_not_found"),
        (errors.ContextOverflow("x"), 400, "context_length_exceeded"),
        (errors.UnsupportedFeature("x"), 400, "unsupported_feature"),
        (errors.AgentLimit("x", retry_after_s=0.2), 429, "agent_limit"),
        (errors.SystemFull("x", retry_after_s=3.2), 503, "system_full"),
        (errors.DeadlineUnreachable("x", retry_after_s=3.0), 503, "deadline_unreachable"),
        (errors.IntakePaused("x", retry_after_s=3.0), 503, "intake_paused"),
        (errors.BackendUnavailable("x"), 503, "backend_unavailable"),
        (errors.ModelFileMissing("x"), 503, "model_file_missing"),
        (errors.LoadFailed("x"), 502, "load_failed"),
        (errors.GenerationFailed("x"), 502, "generation_failed"),
        (errors.Cancelled("x"), 503, "cancelled"),
    ],
)
def test_every_error_of_the_tree_has_a_status_and_a_code(error, status, code):
    problem = problem_of(error)
    assert problem is not None and (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (3.0, "3"), (3.2, "4"), (float("inf"), "60"), (float("nan"), "60")]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_retry_after_is_whole_seconds_rounded_up(connect, path, seconds, header):
    client = connect(FakeEngine([errors.AgentLimit("12 requests of this agent are waiting", retry_after_s=seconds)]))
    answer = await client.post(path, {**CHAT, "stream": True})
    assert (answer.status, answer.headers["retry-after"]) == (429, header)
    assert "are waiting" in answer.body.decode()


async def test_a_cancelled_request_is_not_to_be_retried(connect):
    answer = await connect(FakeEngine([errors.Cancelled("cancelled by an operator")])).post("/api/chat", CHAT)
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bug_is_logged_once_and_told_without_detail(connect, caplog, path, streamed):
    client = connect(FakeEngine([ZeroDivisionError("secret detail")]))
    with caplog.at_level(logging.ERROR):
        answer = await client.post(path, {**CHAT, "stream": streamed})
    assert answer.status == 500 and "secret detail" not in answer.body.decode()
    assert answer.headers["x-request-id"] in answer.body.decode()
    assert len(caplog.records) == 1 and answer.headers["x-request-id"] in caplog.text


async def test_a_bug_mid_stream_ends_the_stream_with_an_error(connect, caplog):
    client = connect(FakeEngine([started(), ZeroDivisionError("secret detail")]))
    lines = (await client.post("/api/chat", CHAT)).lines()
    assert "internal error" in lines[-1]["error"]
    assert len(caplog.records) == 1


async def test_an_answer_that_ends_without_completed_is_a_failure(connect):
    client = connect(FakeEngine([started()]))
    assert (await client.post("/v1/chat/completions", CHAT)).status == 502
    assert "broke off" in (await client.post("/api/chat", CHAT)).lines()[-1]["error"]
    body = {"model": "tinyllama", "prompt": ["a", "b"]}
    assert (await client.post("/v1/completions", body)).status == 502


async def test_an_engine_that_starts_answers_503(connect):
    def starting():
        raise errors.BackendUnavailable("starting")

    client = connect(starting)
    for path in ("/v1/chat/completions", "/api/chat"):
        assert (await client.post(path, CHAT)).status == 503
    health = await client.get("/healthz", key="")
    assert health.status == 503 and health.json()["reason"] == "starting"
    assert (await client.get("/livez", key="")).status == 200
    assert (await client.get("/api/version", key="")).status == 200


async def test_healthz_is_ready_only_when_a_model_can_be_served(client, engine):
    assert (await client.get("/healthz", key="")).json()["status"] == "ready"
    engine.reason = "Ollama does not answer"
    answer = await client.get("/healthz", key="")
    assert answer.status == 503 and answer.json()["reason"] == "Ollama does not answer"
    assert (await client.get("/livez", key="")).status == 200


async def test_keys_that_are_still_being_read_are_503_not_401():
    def still_reading(key):
        raise errors.BackendUnavailable("starting")

    answer = await Client(WireApp(FakeEngine(), still_reading, "0.1.0")).post("/v1/chat/completions", CHAT)
    assert answer.status == 503 and answer.json()["error"]["code"] == "backend_unavailable"
