"""The main job, end to end, in both modes: the embedded engine, real models, the official clients."""

import json
import re
from collections.abc import Iterator

import httpx
import ollama
import openai
import pytest

from tests.scaled import MODES, running
from tests.served import Served, bearer

pytestmark = pytest.mark.slow

TIERS = {"default": "smollm2:135m", "sonnet": "gemma3:270m", "opus": "gemma3:270m-8k"}


@pytest.fixture(scope="module", params=MODES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running(request.param, tmp_path_factory.mktemp("main-job"), "llamacpp") as served:
        yield served


@pytest.fixture(scope="module")
def key(server: Served) -> str:
    return server.key("acceptance", "--scope", "requests", "--scope", "admin")


@pytest.fixture(scope="module")
def openai_client(server: Served, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, timeout=180, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(server: Served, key: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.url, headers=bearer(key), timeout=180)
    yield client
    client._client.close()  # the package has no public way


@pytest.mark.parametrize("tier", TIERS)
def test_the_openai_client_gets_a_streamed_answer_from_a_real_model_of_each_tier(openai_client, tier):
    stream = openai_client.chat.completions.create(
        model=tier,
        messages=[{"role": "user", "content": f"Name a colour. ({tier})"}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.strip()
    assert {c.model for c in chunks} == {TIERS[tier]}
    assert chunks[-1].usage.completion_tokens > 0
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length")


@pytest.mark.parametrize("tier", TIERS)
def test_the_ollama_client_gets_a_streamed_answer_from_a_real_model_of_each_tier(ollama_client, tier):
    messages = [{"role": "user", "content": f"Name an animal. ({tier})"}]
    parts = list(ollama_client.chat(model=tier, messages=messages, stream=True, options={"num_predict": 24}))
    assert "".join(part.message.content or "" for part in parts).strip()
    assert parts[-1].done and parts[-1].done_reason in ("stop", "length")
    assert parts[-1].eval_count > 0 and parts[-1].total_duration > 0


def test_the_log_shows_real_loads_and_evictions_under_the_budget(server):
    loads = re.findall(r"loaded (\S+): (\d+) MB", server.log)
    assert {model for model, _ in loads} == set(TIERS.values())
    assert re.search(r"evicted gemma3:270m", server.log)
    assert all(0 < int(size) <= 1080 for _, size in loads)


def test_a_repeated_prompt_is_answered_from_the_cache_in_both_protocols_streamed_or_not(server, key):
    ask = {"model": "default", "messages": [{"role": "user", "content": "What is a port number?"}], "seed": 5}
    chat, api = f"{server.url}/v1/chat/completions", f"{server.url}/api/chat"
    first = httpx.post(chat, json=ask, headers=bearer(key), timeout=120)
    if first.json()["choices"][0]["finish_reason"] != "stop":  # only whole answers are kept
        ask["messages"][0]["content"] = "Say yes."
        first = httpx.post(chat, json=ask, headers=bearer(key), timeout=120)
    again = httpx.post(chat, json=ask, headers=bearer(key), timeout=120)
    assert (first.headers["x-narrowgauge-cache"], again.headers["x-narrowgauge-cache"]) == ("miss", "exact")
    streamed = httpx.post(chat, json={**ask, "stream": True}, headers=bearer(key), timeout=120)
    assert streamed.headers["x-narrowgauge-cache"] == "exact"
    pieces = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in pieces if c["choices"])
    assert text == first.json()["choices"][0]["message"]["content"]
    native = {"model": "default", "messages": ask["messages"], "options": {"seed": 5}, "stream": False}
    assert httpx.post(api, json=native, headers=bearer(key), timeout=120).headers["x-narrowgauge-cache"] == "exact"


def test_a_mechanical_rewrite_is_answered_semantically_and_a_near_miss_is_not(server, key):
    def ask(question: str) -> httpx.Response:
        body = {"model": "sonnet", "messages": [{"role": "user", "content": question}], "max_tokens": 400, "seed": 3}
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=bearer(key), timeout=180)

    first = ask("What listens on port 8080?")
    assert first.json()["choices"][0]["finish_reason"] == "stop", (
        "the model did not end its answer; pick another prompt"
    )
    assert ask("what listens on   port 8080").headers["x-narrowgauge-cache"] == "semantic"
    assert ask("What listens on port 8081?").headers["x-narrowgauge-cache"] == "miss"


def test_a_task_answers_with_the_result_and_every_decision(server, key):
    task = {
        "prompt": "List three fruits.",
        "task_type": "analysis",
        "reasoning_steps": 1,
        "expected_lines": 3,
        "expertise_level": 0.1,
        "template": "list",
        "max_tokens": 40,
    }
    answer = httpx.post(f"{server.url}/control/v1/tasks", json=task, headers=bearer(key), timeout=180)
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "succeeded"
    assert body["result"]["text"].startswith("- ")
    stages = [decision["stage"] for decision in body["decisions"]]
    assert stages == ["selection", "generation", "cache", "compression", "context", "template"]
    assert all(decision["reason"] for decision in body["decisions"])
    shown = httpx.get(f"{server.url}/control/v1/tasks/{body['id']}", headers=bearer(key), timeout=30).json()
    assert shown["status"] == "succeeded" and shown["tier"] == body["tier"]


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # half a minute of the engine alone
def test_a_long_conversation_is_summarised_by_the_small_model_and_says_so(server, key):
    def call(method: str, path: str, body: dict) -> dict:
        answer = httpx.request(method, server.url + path, json=body, headers=bearer(key), timeout=300, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    patience = {"changes": {"summary_wait_s": 200, "summary_tokens": 48}, "reason": "two slow cores"}
    call("PATCH", "/control/v1/thresholds", patience)
    call("POST", "/control/v1/tasks", {"prompt": "Say hello.", "model": "default", "max_tokens": 4})  # load it
    server.wait(lambda: not any(slot["job_id"] for slot in _status(server, key)["slots"]), 20)
    things = ["garden", "tree", "bird", "river", "stone", "house", "road", "bridge", "cloud", "field"]
    doings = ["grows", "stands", "sings", "flows", "rests", "waits", "leads", "holds", "drifts", "lies"]
    talk = [
        {
            "role": ("user", "assistant")[n % 2],
            "content": " ".join(
                f"The {a} {b} near the {things[n % 10]}, we said." for a in things[:5] for b in doings[:5]
            ),
        }
        for n in range(13)
    ]
    talk.append({"role": "assistant", "content": "Yes."})
    talk.append({"role": "user", "content": "What did we talk about?"})
    task = call("POST", "/control/v1/tasks", {"messages": talk, "model": "sonnet", "max_tokens": 16})
    fitted = next(d for d in task["decisions"] if d["stage"] == "context")
    assert fitted["values"]["summarised"] > 0
    listed = server.get("/control/v1/tasks", headers=bearer(key)).json()["tasks"]
    summaries = [row for row in listed if row["id"].startswith("summary-")]
    assert summaries and summaries[0]["model"] == TIERS["default"] and summaries[0]["usage"]["output_tokens"] > 0


def test_a_client_that_leaves_frees_the_slot(server, key):
    story = [{"role": "user", "content": "Write a very long story about a dragon, with ten chapters."}]
    body = {"model": "default", "messages": story, "stream": True, "temperature": 0, "max_tokens": 1500}
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body, headers=bearer(key), timeout=120
    ) as answer:
        lines = answer.iter_lines()  # kept: dropping it closes the stream
        next(lines)
        assert any(slot["job_id"] for slot in _status(server, key)["slots"])
    server.wait(lambda: not any(slot["job_id"] for slot in _status(server, key)["slots"]), 20)


def _status(server: Served, key: str) -> dict:
    return server.get("/control/v1/status", headers=bearer(key)).json()
