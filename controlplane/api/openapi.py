"""The OpenAPI 3.1 document of /control/v1, built from the pydantic schemas and the routes; and a page that shows it.

Rule: the document lists what `urls.py` routes, and a test holds the two together.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from controlplane import VERSION
from controlplane.api.schemas import AgentIn, ControlIn, FeedbackIn, TaskIn, ThresholdsIn


class BatchLine(TaskIn):
    """One line of a batch: a task, and the caller's own name for it."""

    custom_id: str = Field("", max_length=128, description="Comes back with the result; unique within the batch.")


_JSON_LINES = (BatchLine,)  # bodies that are one such object per line
_KEYED = ("/control/v1/tasks", "/control/v1/batches")  # POST takes an Idempotency-Key
_SCHEMAS: tuple[type[BaseModel], ...] = (TaskIn, FeedbackIn, AgentIn, ThresholdsIn, ControlIn, BatchLine)
_REF = "#/components/schemas/{model}"

# path -> method -> (summary, body schema, success status)
OPERATIONS: dict[str, dict[str, tuple[str, type[BaseModel] | None, str]]] = {
    "/control/v1/tasks": {
        "get": ("List ended tasks, newest first; with ?wait=false the durable ones, ended or not", None, "200"),
        "post": ("Answer a task, with every decision; with wait=false keep it, 202 with its id", TaskIn, "200"),
    },
    "/control/v1/tasks/{task_id}": {
        "get": ("One task with its decisions: a durable one in any state, or one that has ended", None, "200"),
        "delete": ("Cancel a durable task", None, "200"),
    },
    "/control/v1/tasks/{task_id}/cancel": {"post": ("Cancel a durable task", None, "200")},
    "/control/v1/tasks/{task_id}/events": {
        "get": ("A durable task's changes of status, as server-sent events; resumes by Last-Event-ID", None, "200")
    },
    "/control/v1/tasks/{task_id}/feedback": {"post": ("Say how good an answer was", FeedbackIn, "200")},
    "/control/v1/batches": {
        "get": ("List batches with their progress, newest first", None, "200"),
        "post": (
            "Keep many tasks for later: JSON lines, a task each, or lines of an OpenAI batch file",
            BatchLine,
            "202",
        ),
    },
    "/control/v1/batches/{batch_id}": {
        "get": ("One batch with its progress", None, "200"),
        "delete": ("Cancel what is left of a batch", None, "200"),
    },
    "/control/v1/batches/{batch_id}/cancel": {"post": ("Cancel what is left of a batch", None, "200")},
    "/control/v1/batches/{batch_id}/results": {
        "get": ("The ended tasks as JSON lines, in the order of the input", None, "200")
    },
    "/control/v1/agents": {
        "get": ("List agents", None, "200"),
        "post": ("Make an agent (admin scope)", AgentIn, "201"),
    },
    "/control/v1/agents/{slug}": {
        "get": ("One agent", None, "200"),
        "put": ("Replace an agent (admin scope)", AgentIn, "200"),
        "patch": ("Change an agent (admin scope)", AgentIn, "200"),
        "delete": ("Delete an agent (admin scope)", None, "204"),
    },
    "/control/v1/thresholds": {
        "get": ("Every threshold with unit, range, help and source", None, "200"),
        "patch": ("Change thresholds (admin scope)", ThresholdsIn, "200"),
    },
    "/control/v1/control": {"get": ("What people have paused and pinned, and the actions there are", None, "200")},
    "/control/v1/control/{action}": {
        "post": (
            "pause, resume, drain; load, unload, pin, unpin a model; cancel a request; pause-agent, resume-agent "
            "(admin scope)",
            ControlIn,
            "200",
        )
    },
    "/control/v1/cache": {
        "get": ("Cached answers in use, latest first", None, "200"),
        "delete": ("Invalidate an agent's answers or all (admin scope)", None, "200"),
    },
    "/control/v1/cache/{key}": {"delete": ("Invalidate one cached answer", None, "200")},
    "/control/v1/series": {
        "get": ("The charts' figures over ?range=15m, 1h, 6h, 24h or 7d, one point a step", None, "200")
    },
    "/control/v1/suggestions": {
        "get": ("What the rules and the tuner suggest; ?state=all with those decided", None, "200")
    },
    "/control/v1/suggestions/{number}/{decision}": {
        "post": ("apply, dismiss or roll-back a suggestion (admin scope)", None, "200")
    },
    "/control/v1/status": {"get": ("What is running, waiting and resident now", None, "200")},
}

_ERRORS = {
    "400": "The request is wrong; `param` names the field",
    "401": "Missing or invalid key",
    "403": "The key lacks the admin scope",
    "404": "No such thing",
    "409": "It is not in a state that allows this",
    "413": "The body is too large",
    "422": "The Idempotency-Key came before with another body",
    "429": "The agent's own limit; see Retry-After",
    "503": "Full, paused or no model can be served; see Retry-After",
}


def document() -> dict[str, Any]:
    """The whole document."""
    _, definitions = models_json_schema([(schema, "validation") for schema in _SCHEMAS], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Narrowgauge control API",
            "version": VERSION,
            "description": "Tasks, agents and thresholds. The OpenAI- and Ollama-compatible protocols live under "
            "/v1 and /api.",
        },
        "security": [{"bearer": []}],
        "paths": {path: _path(path, methods) for path, methods in OPERATIONS.items()},
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **definitions["$defs"],
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["type", "message"],
                            "properties": {
                                "type": {"type": "string"},
                                "message": {"type": "string"},
                                "param": {"type": ["string", "null"]},
                            },
                        }
                    },
                },
            },
        },
    }


def _path(path: str, methods: dict[str, tuple[str, type[BaseModel] | None, str]]) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    entry: dict[str, Any] = {"parameters": parameters} if parameters else {}
    for method, (summary, schema, success) in methods.items():
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {
                success: {"description": "Done"},
                **({"202": {"description": "Kept: answered later"}} if schema is TaskIn else {}),
                **{
                    status: {
                        "description": text,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                    }
                    for status, text in _ERRORS.items()
                },
            },
        }
        if schema is not None:
            reference = {"$ref": _REF.format(model=schema.__name__)}
            kind = "application/jsonl" if schema in _JSON_LINES else "application/json"
            operation["requestBody"] = {"required": True, "content": {kind: {"schema": reference}}}
        if path in _KEYED and method == "post":
            operation["parameters"] = [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                    "description": "The same key and body name the same task or batch (wait=false only).",
                }
            ]
        entry[method] = operation
    return entry


def as_json(request: HttpRequest) -> JsonResponse:
    return JsonResponse(document())


def page(request: HttpRequest) -> HttpResponse:
    """The document for people."""
    schemas = document()["components"]["schemas"]
    operations = [
        {
            "path": path,
            "method": method.upper(),
            "summary": summary,
            "fields": _fields(schemas[schema.__name__]) if schema else [],
        }
        for path, methods in OPERATIONS.items()
        for method, (summary, schema, _) in methods.items()
    ]
    return render(request, "api.html", {"operations": operations, "version": VERSION})


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "type": _type(field),
            "required": name in required,
            "default": field.get("default", ""),
            "help": field.get("description", ""),
        }
        for name, field in schema["properties"].items()
    ]


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(str(value) or '""' for value in field["enum"])
    if "anyOf" in field:
        return " | ".join(_type(option) for option in field["anyOf"])
    return str(field.get("type", "object"))
