"""A recorded request asked once more: the same conversation, the same agent, an answer that no cache gives.

Rule: what the record does not keep (sampling parameters, tools, formats, images) is not invented: the agent's and the
model's defaults apply, and the page says so. Must not know: HTTP.
"""

import re
from contextlib import aclosing
from uuid import uuid4

from controlplane.front import Front
from optimizer.core.errors import GenerationFailed, InvalidRequest
from optimizer.core.request import Kind, Message, Request
from optimizer.ports import Completed, Record

_ROLE = re.compile(r"(?:^|\n\n)\[(system|user|assistant|tool)\]\n")
ASKABLE = (Kind.CHAT, Kind.GENERATE)


def askable(record: Record) -> bool:
    """Whether enough is kept to ask it again."""
    return record.kind in ASKABLE and bool(_ROLE.match(record.prompt_original))


def messages(transcript: str) -> tuple[Message, ...]:
    """A record's transcript as messages again (the inverse of `pipeline.transcript`)."""
    parts = _ROLE.split(transcript)
    return tuple(Message(role, content) for role, content in zip(parts[1::2], parts[2::2], strict=True))


def as_request(record: Record) -> Request:
    """The request, under a new id. Raises InvalidRequest when its text is not kept."""
    if not askable(record):
        raise InvalidRequest("the text of this request is not kept, so it cannot be asked again")
    return Request(
        id=f"again-{uuid4().hex}",
        agent=record.agent,
        kind=Kind.CHAT,
        messages=messages(record.prompt_original),
        wanted=record.wanted or "auto",
        cache_read=False,
        cache_write=False,
    )


async def ask(service: Front, request: Request) -> str:
    """Run it to its end; returns its id. Raises what any caller would be told."""
    if request.agent not in service.tables.agents:
        raise InvalidRequest(f"there is no agent {request.agent} any more")
    async with aclosing(service.engine.submit(request)) as replies:
        async for reply in replies:
            if isinstance(reply, Completed):
                return request.id
    raise GenerationFailed("the answer broke off")
