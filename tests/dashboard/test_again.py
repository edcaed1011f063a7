"""A request asked again: what is sent, who may, and both answers side by side."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.models import AuditEntry, RequestRecord
from dashboard import again
from optimizer.core.errors import BackendUnavailable
from optimizer.core.request import Message
from optimizer.pipeline import transcript
from optimizer.ports import Completed
from tests.dashboard.test_pages import record


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(alphabet="ab \nü")), min_size=1))
def test_a_transcript_becomes_the_messages_it_was_made_of(turns):
    sent = tuple(Message(role, content) for role, content in turns)
    assert again.messages(transcript(sent)) == sent


@pytest.fixture
def submitted(service):
    """What was submitted to an engine that answers "Hello again"."""
    asked = []

    async def submit(request):
        asked.append(request)
        if len(asked) > 1:
            raise BackendUnavailable("the card is away")
        yield Completed("Hello again", "", (), "stop", 5, 3, 0.0, 0.1, 0.2, 0.3, ())

    service.runner.submit = submit
    return asked


def test_an_operator_asks_again_and_sees_both_answers(sign_in, client, submitted):
    record(1, wanted="opus", answer="Hello SECRET")
    sign_in("operator")
    assert "Send it again" in client.get("/requests/r1").content.decode()
    done = client.post("/requests/r1/again")
    (sent,) = submitted
    assert (sent.agent, sent.wanted, sent.messages) == ("debugger", "opus", (Message("user", "Please do say hello"),))
    assert not sent.cache_read and not sent.cache_write
    assert done.headers["Location"] == f"/requests/r1?again={sent.id}#again-title"
    record(2, answer="Hello again")
    RequestRecord.objects.filter(pk="r2").update(id=sent.id)
    page = client.get(f"/requests/r1?again={sent.id}").content.decode()
    assert "Hello <del>SECRET</del>" in page and "Hello <ins>again</ins>" in page
    assert AuditEntry.objects.get(action="ask_again").actor == "a-operator"
    failed = client.post("/requests/r1/again", follow=True)
    assert "No second answer: the card is away." in failed.content.decode()


def test_a_viewer_neither_asks_again_nor_sees_answers(sign_in, client, submitted):
    record(1)
    record(2)
    RequestRecord.objects.filter(pk="r2").update(id="again-2")
    sign_in("viewer")
    assert client.post("/requests/r1/again").status_code == 403 and not submitted
    page = client.get("/requests/r1?again=again-2").content.decode()
    assert "SECRET" not in page and "Send it again" not in page and "Second answer" not in page


def test_what_is_not_kept_is_not_asked_again(sign_in, client, submitted):
    record(1, prompt_original="", prompt_sent="", answer="")
    record(2, agent="gone")
    sign_in("operator")
    assert "Send it again" not in client.get("/requests/r1").content.decode()
    assert "is not kept" in client.post("/requests/r1/again", follow=True).content.decode()
    assert "no agent gone any more" in client.post("/requests/r2/again", follow=True).content.decode()
    assert not submitted


def test_requests_are_found_by_a_range_of_time(sign_in, client):
    record(1, arrived_at=datetime(2026, 1, 2, 12, tzinfo=UTC))
    record(2, arrived_at=datetime(2026, 1, 3, 12, tzinfo=UTC))
    sign_in("viewer")
    page = client.get("/requests?since=2026-01-03T00:00&until=2026-01-04T00:00").content.decode()
    assert "/requests/r2" in page and "/requests/r1" not in page
    assert "take a time in UTC" in client.get("/requests?since=yesterday").content.decode()
