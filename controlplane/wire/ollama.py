"""The endpoints of Ollama's protocol: chat, generate, embed, and the read-only model routes.

Rule: read, submit, deliver; models are managed by the administrator, so routes that would change them refuse.
Must not know: OpenAI's protocol, how an answer is computed.
"""

import json
from functools import partial

from controlplane.wire.call import Call
from controlplane.wire.delivery import collect, rendered, stream
from controlplane.wire.errors import forbidden
from controlplane.wire.hints import started_headers
from controlplane.wire.ollama_answers import (
    NDJSON,
    Lines,
    answer,
    embed_answer,
    idle_answer,
    running,
    show,
    tags,
)
from controlplane.wire.ollama_requests import asked_model, read_chat, read_embed, read_generate, unloads
from optimizer.core.request import Request

# The version of Ollama whose protocol this is; clients refuse to talk to what looks too old for a feature.
PROTOCOL_VERSION = "0.33.0"


async def root(call: Call) -> None:
    """GET /: what Ollama's clients probe for."""
    await call.exchange.respond(200, b"Ollama is running", content_type=b"text/plain; charset=utf-8")


async def version(call: Call) -> None:
    """GET /api/version: the protocol's version for clients, ours beside it."""
    body = {"version": PROTOCOL_VERSION, "narrowgauge": call.version}
    await call.exchange.respond(200, json.dumps(body).encode())


async def list_tags(call: Call) -> None:
    """GET /api/tags."""
    if call.exchange.method == "HEAD":  # a probe without a key; it asks nobody
        await call.exchange.respond(200, b"")
        return
    await call.exchange.respond(200, tags(call.engine.catalogue(), await call.engine.models()))


async def list_running(call: Call) -> None:
    """GET /api/ps."""
    engine = call.engine
    await call.exchange.respond(200, running(engine.catalogue(), await engine.models(), await engine.residents()))


async def show_model(call: Call) -> None:
    """POST /api/show. Raises ModelNotFound."""
    fields = await call.fields()
    wanted = call.wanted(asked_model(fields))
    await call.exchange.respond(200, show(wanted, call.engine.catalogue(), await call.engine.models()))


async def chat(call: Call) -> None:
    """POST /api/chat."""
    fields = await call.fields()
    unload = unloads(fields)
    await _answer(call, asked_model(fields), read_chat(call, fields), chat=True, unload=unload)


async def generate(call: Call) -> None:
    """POST /api/generate."""
    fields = await call.fields()
    unload = unloads(fields)
    await _answer(call, asked_model(fields), read_generate(call, fields), chat=False, unload=unload)


async def _answer(call: Call, asked: str, request: Request, *, chat: bool, unload: bool) -> None:
    exchange = call.exchange
    if not request.messages:
        body = idle_answer(chat, asked, unload)
        kind = NDJSON if request.stream else b"application/json"
        await exchange.respond(200, body + b"\n" if request.stream else body, content_type=kind)
        return
    engine = call.engine
    replies = engine.submit(request)
    if request.stream:
        await stream(exchange, replies, Lines(chat, asked), call.pace, simulated=engine.simulated)
        return
    started, completed = await collect(exchange, replies)
    await exchange.respond(200, answer(chat, asked, started, completed), started_headers(started))


async def embed(call: Call) -> None:
    """POST /api/embed."""
    fields = await call.fields()
    request = read_embed(call, fields, "input")
    dimensions = fields.integer("dimensions", 1, 1_000_000)
    if not request.inputs:
        nothing = {"model": asked_model(fields), "embeddings": [], "total_duration": 0, "load_duration": 0}
        await call.exchange.respond(200, json.dumps(nothing).encode())
        return
    started, completed = await collect(call.exchange, call.engine.submit(request))
    body = await rendered(partial(embed_answer, asked_model(fields), started, completed, dimensions), completed)
    await call.exchange.respond(200, body, started_headers(started))


async def embeddings(call: Call) -> None:
    """POST /api/embeddings, the older form: one prompt, one vector."""
    fields = await call.fields()
    request = read_embed(call, fields, "prompt")
    if not request.inputs:
        await call.exchange.respond(200, b'{"embedding":[]}')
        return
    started, completed = await collect(call.exchange, call.engine.submit(request))
    vector = list(completed.vectors[0]) if completed.vectors else []
    await call.exchange.respond(200, json.dumps({"embedding": vector}).encode(), started_headers(started))


async def managed(call: Call) -> None:
    """Routes that would change models. Raises HttpError 403."""
    raise forbidden(
        f"{call.exchange.path} is not available: models are managed by the administrator of this server",
        "model_management",
    )
