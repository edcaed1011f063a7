"""Agents as a file: export, and an import that first shows what it would do, row by row.

Rule: between the preview and the import the server keeps nothing: the file travels with the page, and is judged anew.
Must not know: what a row means.
"""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from controlplane import agent_files
from controlplane.models import Agent
from dashboard.access import ADD_AGENTS, AGENTS, demand, may, page
from dashboard.engine import on_loop, service_of
from optimizer.core.errors import ConfigurationError

TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


@page()
def export(request: HttpRequest, form: str) -> HttpResponse:
    """Every agent, as CSV or JSON; keys are not in it."""
    return as_file(agent_files.write(Agent.objects.all(), form), form)


@page()
def take_in(request: HttpRequest) -> HttpResponse:
    """Upload, look at what would happen, confirm."""
    demand(request, ADD_AGENTS)
    demand(request, AGENTS)
    context = {"may": may(request.user), "columns": agent_files.COLUMNS}
    if request.method != "POST":
        return render(request, "dashboard/agents_import.html", context)
    form = request.POST.get("form", "")
    try:
        text, form = _given(request, form)
        wanted = agent_files.plan(text, form)
        if request.POST.get("confirmed") == "1":
            written = agent_files.apply(wanted, request.user.get_username())
            on_loop(service_of(request).refresh)
            messages.success(request, f"{written} agents written, and in force.")
            return redirect("dashboard:agents")
    except ConfigurationError as error:
        return render(request, "dashboard/agents_import.html", {**context, "problem": str(error)}, status=422)
    shown = [row for row in wanted.rows if row.kind != agent_files.Kind.SAME]
    shown.sort(key=lambda row: row.kind != agent_files.Kind.WRONG)  # what must be mended comes first
    counts = [(kind.value, wanted.count(kind)) for kind in agent_files.Kind]
    context |= {"plan": wanted, "rows": shown, "counts": counts, "text": text, "form": form}
    return render(request, "dashboard/agents_import.html", context, status=200 if wanted.ready else 422)


def as_file(text: str, form: str) -> HttpResponse:
    """A download."""
    answer = HttpResponse(text, content_type=TYPES[form])
    answer["Content-Disposition"] = f'attachment; filename="agents-{timezone.now():%Y%m%d}.{form}"'
    return answer


def _given(request: HttpRequest, form: str) -> tuple[str, str]:
    """The file's text and format: uploaded, or as the preview sent it back."""
    file = request.FILES.get("file")
    if file is None:
        text = request.POST.get("text", "")
        if not text:
            raise ConfigurationError("choose a CSV or JSON file")
        return text, form if form in agent_files.FORMATS else "csv"
    if file.size > 4 * agent_files.LONGEST_CHARACTERS:
        raise ConfigurationError(f"the file is longer than {agent_files.LONGEST_CHARACTERS:,} characters")
    try:
        return file.read().decode("utf-8-sig"), "json" if str(file.name).lower().endswith(".json") else "csv"
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the file is not UTF-8 text (byte {error.start + 1})") from None
