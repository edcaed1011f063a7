"""/control/v1/suggestions: what the rules and the tuner suggest, and deciding on it.

Rule: the same decisions as on the pages, through `controlplane.suggestions`; an applied change is in force before the
answer is sent. Must not know: how suggestions come about.
"""

from functools import partial
from typing import Any

from controlplane import suggestions
from controlplane.api.endpoint import Call, endpoint
from controlplane.wire.errors import HttpError, Problem
from optimizer.core.errors import InvalidRequest
from optimizer.core.thresholds import ThresholdError

MOST = 200


async def index(call: Call) -> Any:
    """Open ones, latest first; ?state=all those that were decided too."""
    state = call.request.GET.get("state", "open")
    if state not in ("open", "all"):
        raise InvalidRequest("state must be open or all", param="state")
    rows = await call.service.in_database(partial(suggestions.listed, MOST, decided=state == "all"))
    return {"suggestions": rows}


async def decide(call: Call, number: int, decision: str) -> Any:
    """Apply, dismiss or roll back one."""
    call.require_admin()
    if decision not in suggestions.DECISIONS:
        message = f"no decision '{decision[:40]}'; there are {', '.join(suggestions.DECISIONS)}"
        raise HttpError(Problem(404, message, "invalid_request_error", "decision_not_found"))
    try:
        row = await call.service.in_database(suggestions.decide, number, decision, f"agent {call.agent}")
    except suggestions.NotThere as error:
        raise HttpError(Problem(404, str(error), "invalid_request_error", "suggestion_not_found")) from None
    except suggestions.Undecidable as error:
        raise HttpError(Problem(409, str(error), "invalid_request_error", "suggestion_undecidable")) from None
    except ThresholdError as error:
        raise InvalidRequest(str(error), param=next(iter(error.problems))) from None
    await call.service.refresh()
    return row


collection = endpoint(get=index)
single_decision = endpoint(post=decide)
