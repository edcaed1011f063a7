"""Webhooks: signed as Standard Webhooks says, retried within bounds, sent by one, and never to where a request says."""

import base64
import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from threading import Barrier, Event

import httpx
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection

from controlplane import durable_tasks, webhooks
from controlplane.durable_tasks import Line, Once
from controlplane.models import Agent, AuditEntry, DurableTask, WebhookDelivery
from controlplane.stores import durable
from controlplane.task_form import delivery_of
from optimizer.core.request import Priority

NOW = 1_790_000_000.0
URL = "https://receiver.example/hook"

pytestmark = pytest.mark.django_db


class Receiver:
    """Answers with the statuses it was given, the last for ever; keeps what it got."""

    def __init__(self, *statuses: int | Exception) -> None:
        self.statuses = list(statuses)
        self.got: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return httpx.Response(status, headers={"location": "https://elsewhere.example/"}, content=b"x" * 10)

    def deliver(self, at: float) -> int:
        return webhooks.deliver_due(at, transport=httpx.MockTransport(self))


@pytest.fixture
def hooked(agent) -> Agent:
    return webhooks.set_address(agent, URL, "ann")


def ended(agent: str, status: str = "succeeded") -> DurableTask:
    durable_tasks.accept(agent, {"prompt": "SECRET"}, Priority.AGENT, Once(), NOW, 100)
    [held] = durable.claim("r1", {Priority.AGENT: 1}, {}, NOW, 8.0)
    durable.finish(held, status, NOW, outcome={"result": {"text": "SECRET"}, "model": "m"})
    return DurableTask.objects.get(pk=held.number)


def test_what_is_sent_is_signed_over_id_time_and_body_and_holds_no_text(hooked):
    task, receiver = ended(hooked.slug), Receiver(204)
    assert receiver.deliver(NOW + 1) == 1
    [request] = receiver.got
    assert str(request.url) == URL and request.method == "POST"
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.content
    key = base64.b64decode(hooked.webhook_secret.removeprefix("whsec_"))
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{mac}" and len(key) == 32
    assert request.headers["webhook-timestamp"] == str(int(NOW + 1))
    body = json.loads(request.content)
    assert body["type"] == "task.succeeded" and body["data"]["id"] == task.public_id
    assert "SECRET" not in request.content.decode()
    assert delivery_of(task) == {"status": "delivered", "attempts": 1, "delivered_at": NOW + 1, "error": None}
    assert receiver.deliver(NOW + 9e6) == 0, "delivered once is enough"


def test_the_signature_is_that_of_the_standards_example():
    # From the Standard Webhooks specification's reference libraries.
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert webhooks.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_failures_are_tried_again_later_and_later_with_the_same_id_until_given_up(hooked):
    task, receiver, at, waits = ended(hooked.slug), Receiver(500, 302, httpx.ConnectError("no route"), 503), NOW, []
    for _ in range(webhooks.MOST_ATTEMPTS):
        assert receiver.deliver(at) == 0
        due = WebhookDelivery.objects.get().next_at.timestamp()
        assert receiver.deliver(due - 0.01) == 0
        waits.append(due - at)
        at = due
    assert len(receiver.got) == webhooks.MOST_ATTEMPTS and receiver.deliver(at + 9e6) == 0
    assert waits[:4] == [5, 20, 80, 320] and max(waits) == webhooks.LONGEST_RETRY_S
    assert len({request.headers["webhook-id"] for request in receiver.got}) == 1
    assert {str(request.url) for request in receiver.got} == {URL}, "a redirect is not followed"
    assert delivery_of(task) == {"status": "failed", "attempts": 10, "delivered_at": None, "error": "answered 503"}


def test_a_delivery_succeeds_after_failures(hooked):
    task, receiver = ended(hooked.slug, "failed"), Receiver(500, 200)
    assert (receiver.deliver(NOW), receiver.deliver(NOW + 4), receiver.deliver(NOW + 6)) == (0, 0, 1)
    assert delivery_of(task)["status"] == "delivered" and delivery_of(task)["error"] is None


@pytest.mark.django_db(transaction=True)
def test_senders_at_once_send_each_delivery_once(hooked):
    for _ in range(10):
        ended(hooked.slug)
    receiver, barrier = Receiver(200), Barrier(3)

    def send(_: int) -> int:
        barrier.wait(10)
        try:
            return receiver.deliver(NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(send, range(3))) == 10
    assert len({request.headers["webhook-id"] for request in receiver.got}) == 10 == len(receiver.got)


def test_a_receiver_that_never_answers_holds_up_nobody_for_long(hooked, monkeypatch):
    monkeypatch.setattr(webhooks, "SEND_S", 0.2)
    stuck, held = ended(hooked.slug), Event()

    class Never(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            held.wait(10)
            return httpx.Response(200)

    try:
        assert webhooks.deliver_due(NOW, transport=Never()) == 0
    finally:
        held.set()
    assert delivery_of(stuck)["error"] == "no answer within 0.2 s" and delivery_of(stuck)["status"] == "pending"


def test_a_batch_is_told_once_and_its_tasks_are_not(hooked):
    lines = [Line(number, "", {"prompt": "x"}) for number in (1, 2)]
    batch, _ = durable_tasks.accept_batch(hooked.slug, lines, Once(), NOW, 10)
    for held in durable.claim("r1", {Priority.BATCH: 9}, {}, NOW, 8.0):
        durable.finish(held, "succeeded", NOW)
    durable.end_batches(NOW)
    durable.end_batches(NOW)
    assert [(d.event, d.batch_id, d.task_id) for d in WebhookDelivery.objects.all()] == [
        ("batch.finished", batch.pk, None)
    ]
    other = durable_tasks.accept(hooked.slug, {"prompt": "x"}, Priority.AGENT, Once(), NOW, 10)[0]
    durable_tasks.cancel(other, NOW)
    assert WebhookDelivery.objects.get(task=other).event == "task.cancelled"
    assert Receiver(200).deliver(NOW) == 2


def test_an_agent_without_a_webhook_is_told_nothing_and_one_that_lost_it_neither(agent, hooked):
    ended("debugger")
    assert not WebhookDelivery.objects.exists()
    task = ended(hooked.slug)
    webhooks.set_address(hooked, "", "ann")
    assert Receiver(200).deliver(NOW) == 0
    assert delivery_of(task)["status"] == "failed" and "no webhook" in delivery_of(task)["error"]


def test_a_task_that_is_queued_again_is_told_again(hooked):
    task = ended(hooked.slug, "failed")
    assert durable.requeue(DurableTask.objects.all(), NOW) == 1 and not WebhookDelivery.objects.exists()
    [held] = durable.claim("r1", {Priority.AGENT: 1}, {}, NOW, 8.0)
    durable.finish(held, "succeeded", NOW)
    assert [(d.event, d.task_id) for d in WebhookDelivery.objects.all()] == [("task.succeeded", task.pk)]


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "http://", "http://a:b@x/", "x", "http://x:99999/",
                                 "http://x/ y", "javascript:alert(1)"])  # fmt: skip
def test_an_address_that_is_none_is_refused(agent, url):
    with pytest.raises(ValidationError):
        webhooks.set_address(agent, url, "ann")
    assert Agent.objects.get(pk=agent.pk).webhook_url == ""


def test_the_command_sets_and_removes_an_address_and_leaves_a_trace(agent):
    out = StringIO()
    call_command("agentwebhook", agent.slug, "http://hooks:9000/x", stdout=out)
    agent.refresh_from_db()
    assert (agent.webhook_url, out.getvalue().strip()) == ("http://hooks:9000/x", agent.webhook_secret)
    secret = agent.webhook_secret
    call_command("agentwebhook", agent.slug, URL, stdout=StringIO())
    agent.refresh_from_db()
    assert (agent.webhook_url, agent.webhook_secret) == (URL, secret), "receivers keep their secret"
    call_command("agentwebhook", agent.slug, "--remove", stdout=StringIO())
    agent.refresh_from_db()
    assert agent.webhook_url == "" and AuditEntry.objects.filter(action="set webhook").count() == 3
    assert secret not in str(list(AuditEntry.objects.values_list("detail", flat=True)))
    for wrong in (["nobody", URL], [agent.slug], [agent.slug, URL, "--remove"], [agent.slug, "ftp://x"]):
        with pytest.raises(CommandError):
            call_command("agentwebhook", *wrong)
