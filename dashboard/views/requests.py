"""Requests: search and filter, and everything that is known of one.

Rule: texts (prompts, answers, the cached question) only for those who may read them.
"""

import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane import audit, queries, reports
from controlplane.models import CachedAnswer
from dashboard import again
from dashboard.access import PROMPTS, STEER, demand, may, page
from dashboard.diff import pieces
from dashboard.engine import on_loop, service_of
from dashboard.moments import moment
from optimizer.core.errors import BackendUnavailable, NarrowgaugeError
from optimizer.ports import Record
from optimizer.quotes import without_quotes

PER_PAGE = 50
FILTERS = ("agent", "model", "tier", "cache", "status", "span", "since", "until", "slow")
SPANS = {"15m": 0.25, "1h": 1, "6h": 6, "24h": 24, "7d": 168}  # hours


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Ended requests by filter, fifty at a time."""
    allowed = may(request.user)
    given = {name: request.GET.get(name, "").strip() for name in FILTERS}
    given["text"] = request.GET.get("text", "").strip() if allowed["prompts"] else ""
    problem, slower_s = "", 0.0
    if given["slow"]:
        try:
            slower_s = max(0.0, float(given["slow"]))
        except ValueError:
            problem = "“Slower than” takes a number of seconds."
    hours = SPANS.get(given["span"])
    since, until = (moment(given[name]) if given[name] else None for name in ("since", "until"))
    if (given["since"] and since is None) or (given["until"] and until is None):
        problem = "“From” and “to” take a time in UTC: 2026-11-26T09:00."
    wanted = reports.Filter(
        agent=given["agent"],
        model=given["model"],
        tier=given["tier"],
        cache=given["cache"],
        status=given["status"],
        slower_s=slower_s if slower_s == slower_s else 0.0,
        since=since or (timezone.now() - timedelta(hours=hours) if hours else None),
        until=until,
        text=given["text"],
    )
    number = _number(request.GET.get("page", "1"))
    start = (number - 1) * PER_PAGE
    rows = list(reports.requests(wanted)[start : start + PER_PAGE + 1])
    kept = {name: value for name, value in given.items() if value}
    context = {
        "rows": rows[:PER_PAGE],
        "given": given,
        "filtered": bool(kept),
        "problem": problem,
        "choices": reports.choices(),
        "spans": list(SPANS),
        "statuses": ("replied", "rejected", "cancelled", "failed"),
        "number": number,
        "newer": f"?{urlencode({**kept, 'page': number - 1})}" if number > 1 else "",
        "older": f"?{urlencode({**kept, 'page': number + 1})}" if len(rows) > PER_PAGE else "",
        "may": allowed,
    }
    return render(request, "dashboard/requests.html", context)


@require_POST
@page(STEER)
def ask_again(request: HttpRequest, request_id: str) -> HttpResponse:
    """Send it once more, wait for the answer, and show both side by side."""
    demand(request, PROMPTS)
    record = queries.record(request_id) or _fresh(request, request_id)
    if record is None:
        raise Http404
    try:
        asked = again.as_request(record)
        audit.record(request.user.get_username(), "ask_again", f"request {record.id}", agent=record.agent, new=asked.id)
        new = on_loop(again.ask, service_of(request), asked)
    except NarrowgaugeError as error:
        messages.error(request, f"No second answer: {error}.")
    else:
        return redirect(f"{reverse('dashboard:request', args=[record.id])}?again={new}#again-title")
    return redirect("dashboard:request", record.id)


@page()
def show(request: HttpRequest, request_id: str) -> HttpResponse:
    """One request: waterfall, decisions, what was sent instead of what came, and how to ask again."""
    record = queries.record(request_id) or _fresh(request, request_id)
    if record is None:
        raise Http404
    allowed = may(request.user)
    context = {
        "record": record,
        "arrived": datetime.fromtimestamp(record.arrived_at, tz=UTC),
        "phases": _phases(record),
        "speeds": _speeds(record),
        "decisions": [_decision(decision, allowed["prompts"]) for decision in record.decisions],
        "kept": bool(record.prompt_original or record.answer),
        "pair": _pair(record),
        "diff": pieces(record.prompt_original, record.prompt_sent) if allowed["prompts"] and record.prompt_sent else [],
        "askable": again.askable(record),
        "second": _second(request, record) if allowed["prompts"] else None,
        "curl": _curl(request, record) if allowed["prompts"] and record.prompt_original else "",
        "may": allowed,
    }
    return render(request, "dashboard/request.html", context)


def _number(text: str) -> int:
    return min(max(int(text), 1), 100_000) if text.isdigit() and len(text) < 7 else 1


def _fresh(request: HttpRequest, request_id: str) -> Record | None:
    """One that ended a moment ago and is not in the database yet."""
    try:
        return on_loop(service_of(request).desk.record, request_id)
    except BackendUnavailable:
        return None


def _second(request: HttpRequest, record: Record) -> dict[str, Any] | None:
    """The answer to the same question asked again, beside the first."""
    asked = request.GET.get("again", "")
    second = (queries.record(asked) or _fresh(request, asked)) if asked.startswith("again-") else None
    if second is None or second.agent != record.agent or second.prompt_original != record.prompt_original:
        return None
    return {"record": second, "same": second.answer == record.answer, "diff": pieces(record.answer, second.answer)}


def _phases(record: Record) -> list[dict[str, Any]]:
    """The waterfall: what followed what, in seconds and in per cent of the whole."""
    waited_s = max(0.0, record.queue_s - record.load_s)
    parts = [
        ("queued", waited_s),
        ("load", min(record.load_s, record.queue_s)),
        ("prefill", record.prefill_s),
        ("decode", record.decode_s),
    ]
    whole_s = max(record.total_s, sum(length for _, length in parts), 1e-9)
    parts.append(("other", max(0.0, record.total_s - sum(length for _, length in parts))))
    shown, start = [], 0.0
    for name, length in parts:
        left, width = (f"{100 * part / whole_s:.2f}" for part in (start, length))
        shown.append({"name": name, "s": length, "left": left, "width": width})
        start += length
    return shown


def _speeds(record: Record) -> dict[str, float | None]:
    return {
        "prefill": record.prompt_tokens / record.prefill_s if record.prefill_s > 0 else None,
        "decode": record.output_tokens / record.decode_s if record.decode_s > 0 else None,
    }


def _decision(decision: Any, reads: bool) -> dict[str, Any]:
    shown = decision if reads else without_quotes(decision)
    values = shown.get("values", {}).items()
    flat = {n: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for n, v in values}
    return {name: shown.get(name, "") for name in ("stage", "choice", "reason")} | {"values": flat}


def _pair(record: Record) -> dict[str, Any] | None:
    """The question that the answer was made for, if this one was only similar."""
    if record.cache != "semantic":
        return None
    for decision in record.decisions:
        values = decision.get("values", {})
        if decision.get("stage") == "cache" and "similarity" in values:
            kept = CachedAnswer.objects.filter(pk=values.get("key", "")).first()
            return {**values, "kept": kept}
    return None


def _curl(request: HttpRequest, record: Record) -> str:
    """The same prompt again, as a command for a shell."""
    body = {"prompt": _prompt(record.prompt_original), "model": record.wanted or "auto"}
    return (
        f"curl {shlex.quote(request.build_absolute_uri('/control/v1/tasks'))} \\\n"
        f'  -H "Authorization: Bearer $NARROWGAUGE_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def _prompt(transcript: str) -> str:
    """A transcript of one user message as that message; a longer one as it is."""
    alone = transcript.startswith("[user]\n") and "\n\n[" not in transcript
    return transcript.removeprefix("[user]\n") if alone else transcript
