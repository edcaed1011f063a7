"""/control/v1/cache: what is kept, what it saved, and taking answers out of use.

Rule: questions are private: an agent sees its own entries, an admin key all of them. What is taken out of use is gone
from memory before the answer is sent.
"""

from typing import Any

from controlplane import cached_answers, queries
from controlplane.api.endpoint import Call, endpoint
from controlplane.wire.errors import HttpError, Problem
from optimizer.core.errors import InvalidRequest

MOST = 200


async def index(call: Call) -> Any:
    """Entries, latest first, with how often each was given again; ?agent= narrows (admin scope)."""
    agent = call.request.GET.get("agent", "") if call.is_admin else call.agent
    rows = await call.service.in_database(queries.cached_answers, agent, MOST)
    return {"entries": rows, "outcomes": (await call.service.desk.cache())["outcomes"]}


async def clear(call: Call) -> Any:
    """Invalidate: ?agent=SLUG an agent's entries, ?all=true everybody's (admin scope)."""
    call.require_admin()
    wanted = call.request.GET
    agent, everything = wanted.get("agent", ""), wanted.get("all", "").lower() == "true"
    if bool(agent) == everything:
        raise InvalidRequest("say either agent=SLUG or all=true", param="agent")
    return {"invalidated": await _invalidate(call, {"agent": agent} if agent else {})}


async def remove(call: Call, key: str) -> Any:
    """Invalidate one entry: the caller's own, or any with the admin scope."""
    own = {} if call.is_admin else {"agent": call.agent}
    count = await _invalidate(call, {"key": key[:64], **own})
    if not count:
        raise HttpError(Problem(404, f"no cached answer '{key[:64]}'", "invalid_request_error", "entry_not_found"))
    return {"invalidated": count}


async def _invalidate(call: Call, which: dict[str, str]) -> int:
    await call.service.flush()  # an answer stored a moment ago counts too
    actor = f"agent {call.agent}"
    count: int = await call.service.in_database(
        lambda: cached_answers.invalidate(queries.live_cached_answers(**which), actor=actor)
    )
    await call.service.refresh()
    return count


collection = endpoint(get=index, delete=clear)
single = endpoint(delete=remove)
