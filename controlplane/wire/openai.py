"""The endpoints of the OpenAI protocol: /v1/models, chat/completions, completions, embeddings.

Rule: read, submit, deliver; what a body or an answer looks like is said in openai_requests and openai_answers.
Must not know: Ollama's protocol, how an answer is computed.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from controlplane.wire.call import Call
from controlplane.wire.delivery import collect, rendered, stream
from controlplane.wire.hints import started_headers
from controlplane.wire.names import aliases, resolve
from controlplane.wire.openai_answers import (
    ChatChunks,
    Choice,
    Identity,
    TextChunks,
    chat_answer,
    completions_answer,
    embeddings_answer,
)
from controlplane.wire.openai_requests import read_chat, read_completions, read_embeddings, wants_usage
from optimizer.core.errors import GenerationFailed
from optimizer.core.request import Request
from optimizer.ports import Completed, Delta, Engine, Started

_PROMPTS_AT_ONCE = 4  # of one call; more would only fill the agent's own queue


def _model_entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "narrowgauge"}


async def models(call: Call) -> None:
    """GET /v1/models: served models and the aliases."""
    catalogue = call.engine.catalogue()
    names = [*catalogue.models, *aliases(catalogue)]
    body = {"object": "list", "data": [_model_entry(name) for name in names]}
    await call.exchange.respond(200, json.dumps(body).encode())


async def model(call: Call) -> None:
    """GET /v1/models/{id}. Raises ModelNotFound."""
    resolve(call.argument, call.engine.catalogue())
    await call.exchange.respond(200, json.dumps(_model_entry(call.argument)).encode())


def _identity(call: Call, prefix: str, asked: str) -> Identity:
    return Identity(f"{prefix}-{call.exchange.request_id.removeprefix('req-')}", int(time.time()), asked)


async def chat_completions(call: Call) -> None:
    """POST /v1/chat/completions."""
    fields = await call.fields()
    request = read_chat(call, fields)
    identity = _identity(call, "chatcmpl", fields.text("model"))
    engine = call.engine
    if request.stream:
        chunks = ChatChunks(identity, wants_usage(fields))
        await stream(call.exchange, engine.submit(request), chunks, call.pace, simulated=engine.simulated)
        return
    started, completed = await collect(call.exchange, engine.submit(request))
    await call.exchange.respond(200, chat_answer(identity, started, completed), started_headers(started))


async def completions(call: Call) -> None:
    """POST /v1/completions, with one prompt or several."""
    fields = await call.fields()
    requests = read_completions(call, fields)
    identity = _identity(call, "cmpl", fields.text("model"))
    engine = call.engine
    pieces = _merged(engine, requests)
    if requests[0].stream:
        chunks = TextChunks(identity, wants_usage(fields))
        await stream(call.exchange, pieces, chunks, call.pace, simulated=engine.simulated)
        return
    call.exchange.watch()
    started: Started | None = None
    parts: dict[int, Completed] = {}
    async with aclosing(pieces):
        async for item in pieces:
            if isinstance(item, Started):
                started = item
            elif isinstance(item, Choice) and isinstance(item.item, Completed):
                parts[item.index] = item.item
    if started is None or len(parts) != len(requests):
        raise GenerationFailed("the answer broke off")
    ordered = [parts[index] for index in range(len(requests))]
    await call.exchange.respond(200, completions_answer(identity, started, ordered), started_headers(started))


async def embeddings(call: Call) -> None:
    """POST /v1/embeddings."""
    fields = await call.fields()
    request = await read_embeddings(call, fields)
    started, completed = await collect(call.exchange, call.engine.submit(request))
    in_base64 = fields.text("encoding_format") == "base64"
    size = fields.integer("dimensions", 1, 1_000_000)
    render = partial(embeddings_answer, fields.text("model"), started, completed, in_base64, size)
    body = await rendered(render, completed)
    await call.exchange.respond(200, body, started_headers(started))


async def _merged(engine: Engine, requests: Sequence[Request]) -> AsyncGenerator[Any, None]:
    """The replies to several requests as one: Waiting*, the first Started, Choices, one Completed with the sums.

    The first failure ends all of them. The queue is short: a slow reader slows the generations down, nothing more.
    """
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(maxsize=16)
    places = asyncio.Semaphore(_PROMPTS_AT_ONCE)

    async def follow(index: int, request: Request) -> None:
        whole = False
        try:
            async with places, aclosing(engine.submit(request)) as replies:
                async for item in replies:
                    await queue.put((index, item))
                    whole = whole or isinstance(item, Completed)
            if not whole:
                raise GenerationFailed("the answer broke off")
        except Exception as error:  # handed to the reader below, which raises it
            await queue.put((index, error))

    tasks = [asyncio.create_task(follow(index, request)) for index, request in enumerate(requests)]
    finished: list[Completed] = []
    begun = False
    try:
        while len(finished) < len(requests):
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, (Delta, Completed)):
                yield Choice(index, item)
            elif not begun:
                begun = isinstance(item, Started)
                yield item
            if isinstance(item, Completed):
                finished.append(item)
        prompt_tokens = sum(item.prompt_tokens for item in finished)
        output_tokens = sum(item.output_tokens for item in finished)
        await asyncio.gather(*tasks)
        yield replace(finished[0], text="", prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
