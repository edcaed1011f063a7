"""The replay pages without a browser: who may what, what is wrong and said, the life of a replay, deciding."""

import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from controlplane import recording, replays, stores, thresholds
from controlplane.models import Replay, Suggestion, Traffic
from optimizer.core.errors import ConfigurationError
from tests.controlplane.test_stores import RECORD

MODELS = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")
LINE = '{"at_s": %d, "agent": "a", "model": "tinyllama", "prompt_tokens": 9, "output_tokens": 50, "key": "k%d"}'


@pytest.fixture(autouse=True)
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """Replays that a process would carry out; tests do it themselves."""
    asked: list[Replay] = []
    monkeypatch.setattr(replays, "spawn", asked.append)
    return asked


@pytest.fixture
def traffic(seeded) -> None:
    """Two hours of records in which a question comes again every four minutes."""
    buffer, now = stores.RecordBuffer(), time.time()
    for n in range(240):
        key = ({"stage": "cache", "values": {"key": str(n % 8)}},)
        at = now - 5.0 - n * 30.0
        fields = {"model": MODELS[n % 8 % 3], "output_tokens": 200 + n % 50, "decisions": key}
        buffer.save(replace(RECORD, id=f"r{n}", arrived_at=at, **fields))
    buffer.flush()


def body(**rest: str) -> dict[str, str]:
    return {"traffic": "", "span": "8", **rest}


def upload(client, text: bytes, name: str = "hour.jsonl"):
    return client.post("/replay/import", {"file": SimpleUploadedFile(name, text)})


def test_an_empty_history_says_so_and_a_viewer_is_offered_nothing(sign_in):
    text = sign_in("viewer").get("/replay/").content.decode()
    assert "Nothing recorded yet" in text and "Run the replay" not in text and ">Import<" not in text


@pytest.mark.usefixtures("traffic")
def test_only_operators_run_replays_and_only_admins_apply_what_is_not_proved(sign_in, client, spawned):
    assert sign_in("viewer").post("/replay/", body(slots="1")).status_code == 403
    assert sign_in("operator").post("/replay/", body(slots="1")).status_code == 302
    (made,) = spawned
    assert replays.carry_out(made) == "done"
    path = f"/replay/{made.pk}"
    assert "No tuner would propose this change" in client.get(path).content.decode()
    assert client.post(f"{path}/apply", {"reason": "try"}).status_code == 403
    sign_in("admin")
    assert client.post(f"{path}/apply", {"reason": " "}).status_code == 422
    assert client.post(f"{path}/apply", {"reason": "try"}).status_code == 302
    assert thresholds.current().slots == 1 and thresholds.latest().author == "a-admin"
    assert thresholds.latest().reason == "try"


@pytest.mark.usefixtures("traffic")
def test_what_a_replay_proved_an_operator_applies_watches_and_rolls_back(sign_in, client, service, spawned):
    thresholds.change({"cache_ttl_s": 60.0}, "anna", "short")
    sign_in("operator")
    client.post("/replay/", body(cache_ttl_s="1800"))
    (made,) = spawned
    replays.carry_out(made)
    made.refresh_from_db()
    assert made.result["effect"]["accepted"] and (made.done, made.total) == (16, 16)
    page = client.get(f"/replay/{made.pk}").content.decode()
    for words in ("mean response", "p95 response", "within target", "swaps", "opus", "95 % of pieces"):
        assert words in page, words
    client.post(f"/replay/{made.pk}/apply", {"reason": "questions come again"})
    assert thresholds.current().cache_ttl_s == 1800.0 and service.refreshed == 1
    suggestion = Suggestion.objects.get()
    assert (suggestion.state, suggestion.evidence["source"]) == ("applied", "tuner")  # so the tuner checks its effect

    assert "No request has ended since" in client.get(f"/replay/{made.pk}").content.decode()
    buffer = stores.RecordBuffer()
    buffer.save(replace(RECORD, id="since", model="tinyllama", arrived_at=time.time() + 0.001, total_s=2.0))
    buffer.flush()
    time_passes(seconds=60, suggestion=suggestion)
    watched = client.get(f"/replay/{made.pk}").content.decode()
    assert "Predicted" in watched and "2.00 s" in watched
    assert client.post(f"/replay/{made.pk}/apply", {"reason": "again"}).status_code == 409

    client.post(f"/replay/{made.pk}/roll-back")
    assert thresholds.current().cache_ttl_s == 60.0
    assert Suggestion.objects.get().state == "rolled_back"


def time_passes(seconds: float, suggestion: Suggestion) -> None:
    """As if the change had been made earlier."""
    suggestion.refresh_from_db()
    revision = suggestion.revision
    type(revision).objects.filter(pk=revision.pk).update(at=revision.at - timedelta(seconds=seconds))


@pytest.mark.usefixtures("traffic")
def test_a_change_meanwhile_makes_a_replay_outdated(sign_in, client, spawned):
    sign_in("admin")
    client.post("/replay/", body(slots="1"))
    replays.carry_out(spawned[0])
    thresholds.change({"stay": 30.0}, "anna", "meanwhile")
    assert "Changed since this replay: stay" in client.get(f"/replay/{spawned[0].pk}").content.decode()
    assert client.post(f"/replay/{spawned[0].pk}/apply", {"reason": "try"}).status_code == 409
    assert thresholds.current().slots == 2


@pytest.mark.usefixtures("traffic")
def test_a_cancelled_replay_stops_at_its_next_piece_and_stays_cancelled(sign_in, client, spawned):
    sign_in("operator")
    client.post("/replay/", body(slots="1"))
    (made,) = spawned
    assert client.get(f"/replay/{made.pk}/progress").json()["state"] == "running"
    client.post(f"/replay/{made.pk}/cancel")
    assert replays.carry_out(made) == "cancelled"
    found = Replay.objects.get()
    assert (found.state, found.result) == ("cancelled", {})
    assert "was cancelled" in client.get(f"/replay/{made.pk}").content.decode()


@pytest.mark.usefixtures("traffic")
def test_no_more_than_two_run_at_once_and_one_whose_process_is_gone_is_given_up(sign_in, client):
    sign_in("operator")
    for slots in ("1", "3"):
        assert client.post("/replay/", body(slots=slots)).status_code == 302
    refused = client.post("/replay/", body(slots="4"))
    assert refused.status_code == 422 and "2 replays are running already" in refused.content.decode()
    Replay.objects.update(moved_at=timezone.now() - timedelta(hours=1))
    assert client.post("/replay/", body(slots="4")).status_code == 302
    assert set(Replay.objects.filter(state="failed").values_list("error", flat=True)) == {
        "its process is gone; run it again"
    }


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing is changed"),
        ({"slots": "many"}, "must be a number"),
        ({"slots": "1", "traffic": "77"}, "not kept any more"),
        ({"slots": "1", "span": "own", "since": "x", "until": ""}, "Say from when to when"),
        ({"slots": "1", "span": "own", "since": "2026-01-02T00:00", "until": "2026-01-01T00:00"}, "must end after"),
        ({"temperature": "0.1"}, "a replay cannot show its effect"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(sign_in, given, said, spawned):
    page = sign_in("operator").post("/replay/", body(**given))
    assert page.status_code == 422 and said in page.content.decode() and not spawned


def test_a_link_fills_a_change_in(sign_in):
    text = sign_in("operator").get("/replay/?stay=30&temperature=0.1").content.decode()
    assert 'name="stay" type="text" inputmode="decimal" value="30"' in text
    assert "a replay cannot show its effect" in text


@pytest.mark.usefixtures("traffic")
def test_what_was_recorded_comes_back_as_it_was_exported(sign_in, client, spawned):
    sign_in("operator")
    exported = client.get("/replay/export?span=8")
    assert "attachment" in exported.headers["Content-Disposition"]
    assert exported.content.count(b"\n") == 240 and b"question" not in exported.content
    assert (
        "No request"
        in client.get("/replay/export?span=own&since=2020-01-01T00:00&until=2020-01-02T00:00").content.decode()
    )
    assert upload(client, exported.content).status_code == 302
    taken = Traffic.objects.get()
    assert (taken.requests, taken.name, taken.author) == (240, "hour.jsonl", "a-operator")
    client.post("/replay/", body(slots="1", traffic=str(taken.pk)))
    assert replays.carry_out(spawned[0]) == "done"
    client.post(f"/replay/traffic/{taken.pk}/delete")
    assert not Traffic.objects.exists() and not Replay.objects.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ((LINE % (0, 1) + "\n{").encode(), "traffic line 2"),
        (b'{"at_s": 0}', "traffic line 1: &#x27;model&#x27; is missing"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "holds no request"),
        (b"\n\n", "holds no request"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(sign_in, text, said):
    answer = upload(sign_in("operator"), text)
    assert answer.status_code == 422 and said in answer.content.decode()
    assert not Traffic.objects.exists()


@pytest.mark.usefixtures("seeded")
def test_a_process_that_dies_without_a_word_is_a_failed_replay(transactional_db):
    made = Replay.objects.create(change={"slots": 1}, author="a", moved_at=timezone.now())
    replays._wait(SimpleNamespace(communicate=lambda: (b"", b"Traceback\nMemoryError\n")), made.pk)
    made.refresh_from_db()
    assert (made.state, made.error) == ("failed", "MemoryError")


@pytest.mark.usefixtures("seeded")
def test_no_traffic_is_a_failure_with_a_sentence():
    now = timezone.now()
    made = replays.start({"slots": 1}, "anna", since=now - timedelta(hours=1), until=now)
    assert replays.carry_out(made) == "failed"
    made.refresh_from_db()
    assert made.error == "nothing was recorded in that time"
    with pytest.raises(ConfigurationError, match="only a replay that is done"):
        replays.apply(made, "anna", "why")


@pytest.mark.usefixtures("traffic")
def test_the_thresholds_page_previews_and_changes_nothing(sign_in, client, spawned):
    sign_in("admin")
    page = client.post("/thresholds", {"revision": "0", "slots": "1", "temperature": "0.5", "preview": "1"})
    text = page.content.decode()
    assert page.status_code == 200 and "cannot show the effect of temperature" in text and 'value="1"' in text
    assert thresholds.latest() is None and spawned[0].change == {"slots": 1}
    replays.carry_out(spawned[0])
    assert "mean response" in client.get(f"/replay/{spawned[0].pk}/table").content.decode()
    bad = client.post("/thresholds", {"revision": "0", "slots": "ninety", "preview": "1"})
    assert bad.status_code == 422 and "must be a number" in bad.content.decode()
    assert sign_in("operator").post("/thresholds", {"slots": "1", "preview": "1"}).status_code == 403


@pytest.mark.usefixtures("traffic")
def test_recorded_traffic_is_counted_by_the_hour():
    hours = recording.by_hour(time.time() - 86_400)
    assert sum(count for _, count in hours) == 240 and len(hours) in (2, 3)
    assert all(hour.minute == 0 for hour, _ in hours)
