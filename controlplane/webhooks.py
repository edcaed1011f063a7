"""Signed webhooks: what is to be told is a row; `deliver_due` sends what is due and notes what became of it.

Signed as Standard Webhooks says: `webhook-id`, `webhook-timestamp`, and `webhook-signature` = "v1," + base64 of the
HMAC-SHA256 of "id.timestamp.body" under the agent's secret.

Rule: the address is the agent's, set by people only; no request can name one. Redirects are not followed, answers are
not read. At least once: a receiver tells repeats by `webhook-id`.
Must not know: when it is called (a loop in one process, Celery in another).
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from django.db import transaction
from django.db.models import F

from controlplane import audit, storable
from controlplane.models import Agent, WebhookDelivery

MOST_ATTEMPTS = 10
FIRST_RETRY_S = 5.0  # then four times as long each time:
LONGEST_RETRY_S = 6 * 3600.0  # the last of ten attempts is about 14 hours after the first
QUIET_S = 5.0  # a receiver that is silent for so long has failed
SEND_S = 10.0  # and one that has not answered after so long, however it spoke
LEASE_S = 60.0  # a sender that died with a delivery in hand is not waited for longer
_AT_ONCE = 32  # deliveries in one go
_SENDERS = 16
_SECRET_PREFIX = "whsec_"

Status = WebhookDelivery.Status


def new_secret() -> str:
    """A fresh signing secret, 256 random bits."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def set_address(agent: Agent, url: str, actor: str) -> Agent:
    """Set or, with "", remove an agent's webhook; a first address brings a secret. Raises ValidationError."""
    agent.webhook_url = url
    if url and not agent.webhook_secret:
        agent.webhook_secret = new_secret()
    agent.full_clean()
    with transaction.atomic():
        agent.save(update_fields=["webhook_url", "webhook_secret", "updated_at"])
        audit.record(actor, "set webhook", f"agent {agent.slug}", url=url)
    return agent


def announce(
    agent: str, event: str, now: float, *, task_id: int | None = None, batch_id: int | None = None
) -> WebhookDelivery | None:
    """Note, in the caller's transaction, that the agent's webhook is to hear of this; None when it has none."""
    if not Agent.objects.filter(slug=agent).exclude(webhook_url="").exists():
        return None
    moment = storable.moment(now)
    return WebhookDelivery.objects.create(
        public_id=f"msg_{uuid4().hex}",
        agent=agent,
        event=event,
        task_id=task_id,
        batch_id=batch_id,
        created_at=moment,
        next_at=moment,
    )


def forget(**about: int) -> None:
    """Drop what was to be said of a task or batch (`task_id`, `batch_id`) that runs again."""
    WebhookDelivery.objects.filter(**about).delete()


def retry_after_s(attempts: int) -> float:
    """How long after so many failed attempts the next one is due."""
    return min(FIRST_RETRY_S * 4.0 ** (attempts - 1), LONGEST_RETRY_S)


def deliver_due(now: float, *, transport: httpx.BaseTransport | None = None) -> int:
    """Send what is due, some at once; returns how many were delivered. Safe to call from several processes.

    `now` in seconds since the epoch; `transport` replaces the network in tests.
    """
    messages = [message for row in _claim(now) if (message := _message(row, now)) is not None]
    problems = _send_all(messages, transport) if messages else []
    for message, problem in zip(messages, problems, strict=True):
        _note(message.row, problem, now)
    return sum(not problem for problem in problems)


@dataclass(frozen=True, slots=True)
class _Message:
    row: WebhookDelivery
    url: str
    headers: dict[str, str]
    body: bytes


def _claim(now: float) -> Sequence[WebhookDelivery]:
    """Due deliveries, each taken by moving its next attempt away; who moved it sends it."""
    due = WebhookDelivery.objects.filter(status=Status.PENDING, next_at__lte=storable.moment(now))
    taken = []
    for row in list(due.order_by("next_at")[:_AT_ONCE]):
        until = storable.moment(now + LEASE_S)
        mine = due.filter(pk=row.pk, attempts=row.attempts).update(attempts=F("attempts") + 1, next_at=until)
        if mine:
            row.attempts += 1
            taken.append(row)
    return taken


def _message(row: WebhookDelivery, now: float) -> _Message | None:
    agent = Agent.objects.filter(slug=row.agent).exclude(webhook_url="").first()
    if agent is None or not agent.webhook_secret:
        WebhookDelivery.objects.filter(pk=row.pk).update(
            status=Status.FAILED, error="the agent has no webhook any more"
        )
        return None
    body = json.dumps(_payload(row), separators=(",", ":")).encode()
    timestamp = int(now)
    headers = {
        "content-type": "application/json",
        "user-agent": "Narrowgauge",
        "webhook-id": row.public_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(agent.webhook_secret, row.public_id, timestamp, body),
    }
    return _Message(row, agent.webhook_url, headers, body)


def _payload(row: WebhookDelivery) -> dict[str, Any]:
    """Names and outcome, no text: the receiver fetches the answer with its own key."""
    ended = row.task or row.batch
    data: dict[str, Any] = {"id": ended.public_id, "agent": row.agent} if ended else {"agent": row.agent}
    if row.task:
        data |= {"status": row.task.status, "model": row.task.model or None, "error": row.task.error}
    return {"type": row.event, "timestamp": row.created_at.isoformat(), "data": data}


def _send_all(messages: Sequence[_Message], transport: httpx.BaseTransport | None) -> list[str]:
    """What became of each: "" or what went wrong."""
    senders = ThreadPoolExecutor(min(_SENDERS, len(messages)), thread_name_prefix="webhook")
    try:
        with httpx.Client(timeout=QUIET_S, follow_redirects=False, trust_env=False, transport=transport) as client:
            sent = [senders.submit(_send, client, message) for message in messages]
            wait(sent, timeout=SEND_S * -(-len(messages) // _SENDERS))
            return [future.result() if future.done() else f"no answer within {SEND_S:g} s" for future in sent]
    finally:
        senders.shutdown(wait=False, cancel_futures=True)


def _send(client: httpx.Client, message: _Message) -> str:
    """Post it; returns "" or what went wrong. Touches no database: it runs in a thread of its own."""
    try:
        with client.stream("POST", message.url, headers=message.headers, content=message.body) as answer:
            return "" if answer.is_success else f"answered {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}"


def _note(row: WebhookDelivery, problem: str, now: float) -> None:
    which = WebhookDelivery.objects.filter(pk=row.pk, status=Status.PENDING)
    if not problem:
        which.update(status=Status.DELIVERED, delivered_at=storable.moment(now), error="")
        return
    which = which.filter(attempts=row.attempts)  # unless another sender has it by now
    over = {"status": Status.FAILED} if row.attempts >= MOST_ATTEMPTS else {}
    next_at = storable.moment(now + retry_after_s(row.attempts))
    which.update(next_at=next_at, error=storable.text(problem, 300), **over)
