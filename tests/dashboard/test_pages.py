"""Pages: who may see and do what, and what each shows."""

import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from controlplane import durable_tasks, keys, thresholds
from controlplane.durable_tasks import Line, Once
from controlplane.models import Agent, AgentKey, AuditEntry, CachedAnswer, DurableTask, RequestRecord
from controlplane.stores import durable
from controlplane.tables import Tables
from optimizer.core import events
from optimizer.core.request import Priority

PAGES = [
    "/",
    "/waiting",
    "/requests",
    "/tasks",
    "/agents",
    "/agents/debugger",
    "/profiles",
    "/cache",
    "/thresholds",
    "/advisor",
    "/replay/",
    "/checklist",
]


def record(number: int = 1, **rest) -> RequestRecord:
    fields = {
        "agent": "debugger", "protocol": "openai", "kind": "chat", "wanted": "auto", "model": "tinyllama",
        "tier": "default", "status": "replied", "arrived_at": timezone.now(), "queue_s": 2.0, "load_s": 1.0,
        "prefill_s": 0.5, "decode_s": 1.5, "ttft_s": 2.5, "total_s": 4.0, "prompt_tokens_original": 20,
        "prompt_tokens": 15, "output_tokens": 30, "cache": "miss", "complexity": 0.25, "simulated": False,
        "prompt_original": "[user]\nPlease do say hello", "prompt_sent": "[user]\nSay hello", "answer": "Hello SECRET",
        "decisions": [{"stage": "selection", "choice": "tinyllama", "reason": "0.25: easy", "values": {"score": 0.2}}],
    }  # fmt: skip
    return RequestRecord.objects.create(id=f"r{number}", **{**fields, **rest})


def answer(key: str = "k1", agent: str = "debugger") -> CachedAnswer:
    return CachedAnswer.objects.create(
        key=key, partition="p", agent=agent, group="g", model="tinyllama", question="What is QUESTION?",
        text="It is.", output_tokens=3, stored_at=timezone.now(),
    )  # fmt: skip


# --- access ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in_or_without_a_role(path, client, sign_in):
    assert client.get(path).headers["Location"].startswith("/login/")
    assert sign_in("").get(path).status_code == 403


def test_a_viewer_sees_every_page_and_no_control(sign_in):
    client = sign_in("viewer")
    record()
    for path in [*PAGES, "/requests/r1"]:
        response = client.get(path)
        assert response.status_code == 200, path
        text = response.content.decode()
        assert not any(
            f">{label}<" in text for label in ("Pause agent", "Pause intake", "Put into force", "Create key")
        )
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("/act", "operator"),
        ("/cache/invalidate", "operator"),
        ("/agents/debugger/keys", "operator"),
        ("/checklist/review", "operator"),
        ("/thresholds", "admin"),
    ],
)
def test_what_changes_something_asks_for_the_role(path, least, sign_in, client):
    body = {"action": "pause", "confirmed": "1", "revision": "0", "slots": "1", "reason": "one", "all": "1"}
    for role in ("viewer", "operator", "admin"):
        sign_in(role)
        allowed = role == "admin" or role == least
        assert (client.post(path, body).status_code == 403) is not allowed, role


# --- live control -----------------------------------------------------------------------------------------


def test_an_action_is_asked_about_then_done_then_undone(sign_in, service):
    client = sign_in("operator")
    asked = client.post("/act", {"action": "pin", "target": "tinyllama"})
    assert "Pin tinyllama?" in asked.content.decode() and not service.runner.events
    done = client.post("/act", {"action": "pin", "target": "tinyllama", "confirmed": "1"}, follow=True)
    assert service.runner.events == [events.ModelPinned("tinyllama")]
    text = done.content.decode()
    assert "tinyllama is pinned." in text and 'value="unpin"' in text and "Undo" in text
    assert AuditEntry.objects.get(action="pin").actor == "a-operator"


def test_pausing_an_agent_is_stored_and_taken_up_at_once(sign_in, service):
    client = sign_in("operator")
    back = client.post("/act", {"action": "pause-agent", "target": "debugger", "confirmed": "1", "next": "/agents"})
    assert back.headers["Location"] == "/agents"
    assert Agent.objects.get(slug="debugger").paused and service.refreshed == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "explode"}, 400),
        ({"action": "cancel", "target": "gone"}, 404),
        ({"action": "load", "target": "gpt-7"}, 404),
        ({"action": "pause-agent", "target": "nobody"}, 404),
    ],
)
def test_what_cannot_be_done_is_said(sign_in, body, status):
    assert sign_in("operator").post("/act", {**body, "confirmed": "1"}).status_code == status


@pytest.mark.parametrize("elsewhere", ["//evil.example", "https://evil.example/", "javascript:alert(1)", "/\\evil"])
def test_an_action_never_leads_elsewhere(sign_in, elsewhere):
    body = {"action": "cancel", "target": "here", "confirmed": "1", "next": elsewhere}
    assert sign_in("operator").post("/act", body).headers["Location"].startswith("/?done=")


# --- thresholds -------------------------------------------------------------------------------------------


def test_a_threshold_is_changed_shown_and_undone_with_one_click(sign_in, service):
    client = sign_in("admin")
    page = client.post("/thresholds", {"revision": "0", "slots": "1", "reason": "one is enough"}, follow=True)
    assert "In force: slots = 1" in page.content.decode() and service.refreshed == 1
    assert thresholds.current().slots == 1
    revision = thresholds.latest()
    assert revision.author == "a-admin" and revision.changes == {"slots": [2, 1]}
    client.post(f"/thresholds/{revision.pk}/undo")
    assert thresholds.current().slots == 2 and service.refreshed == 2


def test_every_bad_field_is_named_and_nothing_typed_is_lost(sign_in):
    client = sign_in("admin")
    body = {"revision": "0", "slots": "ninety", "temperature": "9", "top_p": "0.5", "reason": "try"}
    page = client.post("/thresholds", body)
    text = page.content.decode()
    assert page.status_code == 422 and set(page.context["problems"]) == {"slots", "temperature"}
    assert all(f'value="{typed}"' in text for typed in ("ninety", "9", "0.5", "try"))
    assert thresholds.latest() is None


def test_a_reason_is_required_and_a_change_meanwhile_is_noticed(sign_in):
    client = sign_in("admin")
    assert "reason" in client.post("/thresholds", {"revision": "0", "slots": "1"}).context["problems"]
    thresholds.change({"slots": 1}, "bob", "faster")
    late = client.post("/thresholds", {"revision": "0", "slots": "3", "reason": "x"})
    assert "meanwhile" in late.content.decode() and thresholds.current().slots == 1


# --- requests ---------------------------------------------------------------------------------------------


def test_requests_are_found_by_every_filter(sign_in):
    client = sign_in("operator")
    record(1)
    record(2, agent="title-writer", model="qwen2.5-coder:7b", tier="sonnet", status="failed", cache="", total_s=50.0)

    def found(query: str) -> set[str]:
        return {row.id for row in client.get(f"/requests?{query}").context["rows"]}

    assert found("") == {"r1", "r2"}
    for query in ("agent=debug", "model=tinyllama", "tier=default", "cache=miss", "status=replied", "text=SECRET"):
        assert "r1" in found(query), query
    assert found("status=failed") == found("slow=10") == found("tier=sonnet") == {"r2"}
    assert found("span=1h") == {"r1", "r2"}
    assert "takes a number" in client.get("/requests?slow=soon").content.decode()
    assert client.get("/requests?page=99999999999&slow=nan").status_code == 200


def test_long_listings_come_in_pages(sign_in):
    client = sign_in("viewer")
    for number in range(60):
        record(number)
    first = client.get("/requests?agent=debugger")
    assert len(first.context["rows"]) == 50
    assert len(client.get(f"/requests{first.context['older']}").context["rows"]) == 10


def test_a_request_shows_where_its_time_went_why_and_what_was_sent(sign_in):
    record()
    page = sign_in("operator").get("/requests/r1")
    text = page.content.decode()
    assert [(p["name"], p["s"]) for p in page.context["phases"]] == [
        ("queued", 1.0), ("load", 1.0), ("prefill", 0.5), ("decode", 1.5), ("other", 0.0),
    ]  # fmt: skip
    assert "0.25: easy" in text and "<del>" in text and "Hello SECRET" in text
    assert "20.0 tokens/s" in text
    assert "&quot;prompt&quot;: &quot;Please do say hello&quot;" in text and "$NARROWGAUGE_KEY" in text


def test_texts_are_only_for_those_who_may_read_them(sign_in):
    values = {"key": "k1", "similarity": 0.97, "guard": "strict", "cached_question": "What is QUESTION?", "agent": "x"}
    record(cache="semantic", decisions=[{"stage": "cache", "choice": "semantic hit", "reason": "0.97 similar; QUESTION",
                                         "values": values}])  # fmt: skip
    answer()
    for role, reads in (("viewer", False), ("operator", True)):
        client = sign_in(role)
        for path in ("/requests/r1", "/cache", "/requests?text=SECRET", "/cache?text=QUESTION"):
            text = client.get(path).content.decode().replace('value="QUESTION"', "").replace('value="SECRET"', "")
            assert ("SECRET" in text or "QUESTION" in text) is (reads and "?text=SECRET" not in path), (role, path)
    assert not User.objects.get(username="a-viewer").has_perm("controlplane.read_prompts")


def test_an_unknown_request_or_agent_is_not_found(sign_in):
    client = sign_in("viewer")
    assert client.get("/requests/none").status_code == client.get("/agents/none").status_code == 404


# --- agents and keys ----------------------------------------------------------------------------------------


def test_the_table_has_all_agents_with_their_figures(sign_in):
    record(1)
    record(2, cache="exact", good=True, prefill_s=0.0, decode_s=0.0)
    page = sign_in("viewer").get("/agents?sort=requests")
    first = page.context["rows"][0]
    assert len(page.context["rows"]) == 131 and first["agent"].slug == "debugger"
    assert first["figures"]["requests"] == 2 and first["figures"]["hits"] == 1 and first["figures"]["gpu_share"] == 1.0
    assert len(sign_in("admin").get("/agents?tier=opus").context["rows"]) == 36


def test_an_agents_page_says_whether_it_is_treated_fairly(sign_in):
    record(1, agent="debugger", queue_s=4.0)
    record(2, agent="log-watcher", queue_s=1.0)
    Agent.objects.filter(slug="debugger").update(weight=3.0)
    text = sign_in("viewer").get("/agents/debugger").content.decode()
    assert "its weight is worth 75 % among 2 active; waited 4.0 s, an agent on average 2.5 s" in text
    assert "had no run" not in text


def test_assignments_are_held_against_what_was_measured(sign_in):
    for number in range(40):
        record(number, agent="log-watcher", tier="opus", complexity=0.97)
    text = sign_in("viewer").get("/profiles").content.decode()
    row = text[text.index("/agents/log-watcher") :].split("</tr>")[0]
    assert "<strong>" in row and "0.97" in row and ">40<" in row
    assert "130 of" not in text and "1 of 131 agents measured" in text


def test_a_key_is_shown_once_rotated_and_revoked(sign_in, service):
    client = sign_in("operator")
    made = client.post("/agents/debugger/keys", {"name": "laptop", "days": "7"})
    token = made.context["token"]
    assert token in made.content.decode() and made.headers["Cache-Control"] == "no-store"
    assert token not in client.get("/agents/debugger").content.decode()
    old = AgentKey.objects.get()
    rotated = client.post(f"/agents/debugger/keys/{old.pk}/rotate").context["token"]
    live = Tables.load("simulated")
    assert live.agent_for(token, 0.0) is None and live.agent_for(rotated, 0.0).slug == "debugger"
    new = AgentKey.objects.get(revoked_at=None)
    assert new.name == old.name and new.expires_at - old.expires_at < timedelta(minutes=5)
    kept = client.post(f"/agents/debugger/keys/{new.pk}/rotate", {"hours": "24"}).context["token"]
    live, now = Tables.load("simulated"), time.time()
    assert live.agent_for(rotated, now) and live.agent_for(kept, now), "both work for a day"
    assert not live.agent_for(rotated, now + 86_400) and live.agent_for(kept, now + 86_400)
    assert client.post(f"/agents/debugger/keys/{new.pk}/rotate", {"hours": "-1"}).status_code == 422
    new = AgentKey.objects.latest("pk")
    client.post(f"/agents/debugger/keys/{new.pk}/revoke")
    assert Tables.load("simulated").agent_for(kept, now) is None and service.refreshed == 4
    assert client.post("/agents/debugger/keys", {"days": "soon"}).status_code == 422


def test_an_operator_cannot_get_an_administrators_key(sign_in):
    keys.issue(Agent.objects.get(slug="debugger"), scopes=[keys.Scope.ADMIN])
    client, key = sign_in("operator"), AgentKey.objects.get()
    assert client.post(f"/agents/debugger/keys/{key.pk}/rotate").status_code == 403
    assert client.post(f"/agents/debugger/keys/{key.pk}/revoke").status_code == 403
    assert sign_in("admin").post(f"/agents/debugger/keys/{key.pk}/rotate").status_code == 200


# --- durable tasks ---------------------------------------------------------------------------------------------


def accept(agent: str = "debugger") -> DurableTask:
    return durable_tasks.accept(agent, {"prompt": "SECRET"}, Priority.AGENT, Once(), time.time(), 99)[0]


def test_the_tasks_page_says_what_to_do_when_there_is_nothing(sign_in):
    text = sign_in("viewer").get("/tasks").content.decode()
    assert "/control/v1/batches" in text and "wait" in text


def test_tasks_are_filtered_and_batches_show_their_progress(sign_in):
    first, other = accept(), accept("title-writer")
    lines = [Line(number, f"mine-{number}", {"prompt": "x"}) for number in range(1, 61)]
    batch, _ = durable_tasks.accept_batch("debugger", lines, Once(), time.time(), 99)
    for held in durable.claim("r1", {Priority.BATCH: 3}, {}, time.time(), 8.0):
        durable.finish(held, "succeeded", time.time(), outcome={"model": "m", "result": {"text": "SECRET"}})
    client = sign_in("viewer")
    page = client.get("/tasks")
    assert page.context["counts"] == {"queued": 59, "running": 0, "succeeded": 3, "failed": 0, "cancelled": 0}
    assert [row["ended"] for row in page.context["batches"]] == [3]
    assert len(page.context["rows"]) == 50 and "SECRET" not in page.content.decode()
    older = client.get(f"/tasks{page.context['older']}")
    assert [row.number for row in older.context["rows"]][-2:] == [other.number, first.number]
    assert {row.custom_id for row in client.get("/tasks?status=succeeded").context["rows"]} == {
        "mine-1",
        "mine-2",
        "mine-3",
    }
    assert [row.pk for row in client.get("/tasks?agent=title-writer").context["rows"]] == [other.pk]
    assert len(client.get(f"/tasks?batch={batch.public_id}").context["rows"]) == 50
    for odd in ("?before=x", "?before=99999999999999999999", "?status=none", "?batch=none&agent=%F0"):
        assert client.get(f"/tasks{odd}").status_code == 200, odd


def test_operators_cancel_tasks_and_batches_and_viewers_do_not(sign_in, service):
    task, _ = accept(), accept("title-writer")
    batch, _ = durable_tasks.accept_batch("debugger", [Line(1, "", {"prompt": "x"})], Once(), time.time(), 9)
    assert sign_in("viewer").post("/tasks/cancel", {"task": task.public_id}).status_code == 403
    client = sign_in("operator")
    client.post("/tasks/cancel", {"task": task.public_id})
    client.post("/tasks/cancel", {"batch": batch.public_id})
    assert sorted(DurableTask.objects.values_list("status", flat=True)) == ["cancelled", "cancelled", "queued"]
    assert service.looked == 2 and AuditEntry.objects.filter(action="cancel").count() == 2
    page = client.post("/tasks/cancel", {"task": task.public_id}, follow=True)
    assert "ended already" in page.content.decode()
    assert client.post("/tasks/cancel", {"task": "none"}).status_code == 404
    assert client.post("/tasks/cancel", {"batch": "none"}).status_code == 404


# --- cache and checklist --------------------------------------------------------------------------------------


def test_answers_are_taken_out_of_use_one_an_agents_or_all(sign_in, service):
    client = sign_in("operator")
    for key, agent in (("k1", "debugger"), ("k2", "debugger"), ("k3", "debugger"), ("k4", "title-writer")):
        answer(key, agent)

    def left() -> set[str]:
        return set(CachedAnswer.objects.filter(invalidated_at=None).values_list("pk", flat=True))

    client.post("/cache/invalidate", {})
    assert len(left()) == 4, "nothing was named"
    client.post("/cache/invalidate", {"key": "k1"})
    assert left() == {"k2", "k3", "k4"}
    client.post("/cache/invalidate", {"agent": "debugger"})
    assert left() == {"k4"}
    client.post("/cache/invalidate", {"all": "1"})
    assert not left() and service.refreshed == 3


def test_the_checklist_is_green_only_when_true(sign_in, service):
    client = sign_in("admin")

    def done() -> list[bool]:
        return [item.done for item in client.get("/checklist").context["items"]]

    assert done() == [False, False, False, True, False, False, False], "an empty system has only its batching set up"
    compressed = {"stage": "compression", "values": {"tokens_before": 10, "tokens_after": 8}}
    for number in range(10):
        record(number, decisions=[compressed])
    service.runner.pipeline.cache.__len__ = lambda: 1
    thresholds.change({"stay": 10}, "ann", "weekly look")
    client.post("/checklist/review")
    assert done() == [True, True, False, True, True, True, False]
    Agent.objects.filter(slug="debugger").update(compress=False)
    assert done()[1] is False, "one agent left out is not all agents"
