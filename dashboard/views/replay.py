"""Replay: what was recorded, traffic that people brought along, and a change of thresholds to try on either.

Rule: looking is for everybody who may look; whatever starts, keeps or deletes something asks for `TRY`. Nothing typed
is lost on the way back. Must not know: how a replay works.
"""

from datetime import datetime, timedelta

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from controlplane import recording, replays, thresholds
from controlplane.models import Replay, Traffic
from dashboard import replay_charts
from dashboard.access import TRY, demand, may, page
from dashboard.moments import moment
from dashboard.views.thresholds import field, text_of
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import ThresholdError, as_dict, limits
from optimizer.simulation.recording import lines
from optimizer.simulation.replay import REPLAYABLE

SPANS = {"1": "last hour", "8": "last 8 hours", "24": "last day", "168": "last week", "own": "from … to"}
SHOWN_DAYS = 7.0  # of recorded traffic in the picture
REPLAYS_SHOWN = 20
ONE_LINE = 200  # characters of a file's name that are kept


@page()
def index(request: HttpRequest) -> HttpResponse:
    """The page; `?name=value` fills in a change, as suggestions' links do. A POST starts a replay."""
    typed = request.GET.dict()
    problems: dict[str, str] = {}
    if request.method == "POST":
        demand(request, TRY)
        typed = request.POST.dict()
        found = _start(request, typed, problems)
        if found is not None:
            return redirect("dashboard:replay-show", found.pk)
    return _page(request, typed, problems)


@require_GET
@page()
def export(request: HttpRequest) -> HttpResponse:
    """Recorded traffic of a time as JSON lines: times, sizes, agents and models, no text."""
    try:
        since, until = _span(request.GET.dict())
    except ValueError as error:
        return _page(request, request.GET.dict(), {"span": str(error)})
    taken = recording.recorded(since.timestamp(), until.timestamp())
    if not taken.arrivals:
        return _page(request, request.GET.dict(), {"span": "No request that can be replayed arrived in that time."})
    answer = HttpResponse("\n".join(lines(taken.arrivals)) + "\n", content_type="application/x-ndjson")
    answer["Content-Disposition"] = f'attachment; filename="traffic-{since:%Y%m%d-%H%M}.jsonl"'
    return answer


@require_POST
@page(TRY)
def take_in(request: HttpRequest) -> HttpResponse:
    """Keep an uploaded recording, or say which line is wrong."""
    file = request.FILES.get("file")
    problem = ""
    if file is None:
        problem = "Choose a file: JSON lines, as “Export” or manage.py record write them."
    elif file.size > replays.LONGEST_UPLOAD_BYTES:
        problem = f"{file.name} is larger than {replays.LONGEST_UPLOAD_BYTES // 2**20} MB."
    else:
        try:
            name = str(file.name)[:ONE_LINE]
            taken = replays.take_in(name, file.read().decode("utf-8-sig"), request.user.get_username())
        except UnicodeDecodeError as error:
            problem = f"{file.name} is not UTF-8 text (byte {error.start + 1})."
        except ConfigurationError as error:
            problem = f"{file.name}: {error}."
        else:
            messages.success(request, f"{taken.name}: {taken.requests} requests in {taken.span_s / 60:.0f} min.")
            return redirect(f"{request.path.removesuffix('import')}?traffic={taken.pk}")
    return _page(request, {}, {"file": problem})


@require_POST
@page(TRY)
def discard(request: HttpRequest, traffic: int) -> HttpResponse:
    """Delete imported traffic, and the replays of it."""
    found = get_object_or_404(Traffic, pk=traffic)
    found.delete()
    messages.success(request, f"{found.name} is deleted.")
    return redirect("dashboard:replay")


def _start(request: HttpRequest, typed: dict[str, str], problems: dict[str, str]) -> Replay | None:
    """Start what was asked for; None when something is wrong, said in `problems`."""
    in_force = as_dict(thresholds.current())
    change = {
        name: typed[name] for name in limits() if name in typed and typed[name].strip() != text_of(in_force[name])
    }
    given = typed.get("traffic", "")
    try:
        if given:
            traffic = Traffic.objects.filter(pk=int(given)).first() if given.isdigit() and len(given) < 12 else None
            if traffic is None:
                problems["traffic"] = "That traffic is not kept any more."
                return None
            made = replays.start(change, request.user.get_username(), traffic=traffic)
        else:
            since, until = _span(typed)
            made = replays.start(change, request.user.get_username(), since=since, until=until)
    except ThresholdError as error:
        problems.update(error.problems)
    except ConfigurationError as error:
        problems[""] = f"{error}."
    except ValueError as error:
        problems["span"] = str(error)
    else:
        replays.spawn(made)
        return made
    return None


def _page(request: HttpRequest, typed: dict[str, str], problems: dict[str, str]) -> HttpResponse:
    replays.find_lost()
    hours = recording.by_hour((timezone.now() - timedelta(days=SHOWN_DAYS)).timestamp())
    in_force = as_dict(thresholds.current())
    allowed = may(request.user)
    unknown = sorted(set(typed) & set(limits()) - REPLAYABLE) if request.method == "GET" else []
    if unknown:
        problems = {**problems, **dict.fromkeys(unknown, "a replay cannot show its effect")}
    context = {
        "hours": hours,
        "recorded": sum(count for _, count in hours),
        "figures": {"recorded": replay_charts.recorded(hours)} if hours else {},
        "fields": [
            field(name, limit, in_force[name], typed, problems)
            for name, limit in limits().items()
            if name in REPLAYABLE
        ],
        "spans": SPANS,
        "span": typed.get("span", "8"),
        "since": typed.get("since", ""),
        "until": typed.get("until", ""),
        "chosen": typed.get("traffic", ""),
        "imported": Traffic.objects.defer("lines"),
        "replays": Replay.objects.select_related("suggestion", "traffic").defer("traffic__lines")[:REPLAYS_SHOWN],
        "problems": problems,
        "may": allowed,
    }
    return render(request, "dashboard/replay.html", context, status=422 if problems and not unknown else 200)


def _span(given: dict[str, str]) -> tuple[datetime, datetime]:
    """The time that a form names. Raises ValueError with a sentence."""
    now = timezone.now()
    span = given.get("span", "8")
    if span != "own":
        if span not in SPANS:
            raise ValueError("Choose a time from the list.")
        return now - timedelta(hours=int(span)), now
    since, until = (moment(given.get(name, "")) for name in ("since", "until"))
    if since is None or until is None:
        raise ValueError("Say from when to when, in UTC: 2026-11-26T09:00.")
    if since >= until:
        raise ValueError("The time must end after it begins.")
    return since, until
