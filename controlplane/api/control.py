"""/control/v1/control: steer the running engine with an admin key.

Rule: the same actions as the pages', through `controlplane.control`. Must not know: what an action does.
"""

from typing import Any

from controlplane.api.endpoint import Call, endpoint
from controlplane.api.schemas import ControlIn
from controlplane.control import ABOUT, Action, NotHere
from controlplane.wire.errors import HttpError, Problem
from optimizer.core.errors import InvalidRequest


async def show(call: Call) -> Any:
    """What people have set by hand."""
    return await call.service.desk.steering()


async def act(call: Call, action: str) -> Any:
    """Carry one action out."""
    call.require_admin()
    given: ControlIn = call.body(ControlIn)
    try:
        chosen = Action(action)
    except ValueError:
        message = f"no action '{action[:40]}'; there are {', '.join(Action)}"
        raise HttpError(Problem(404, message, "invalid_request_error", "action_not_found")) from None
    if ABOUT[chosen].of and not given.target:
        raise InvalidRequest(f"target must name the {ABOUT[chosen].of}", param="target")
    try:
        done = await call.service.desk.act(chosen.value, given.target, f"agent {call.agent}")
    except NotHere as error:
        raise HttpError(Problem(404, str(error), "invalid_request_error", "target_not_found", "target")) from None
    return {
        "action": done.action.value,
        "target": done.target,
        "message": done.sentence,
        "undo": done.undo.value if done.undo else None,
    }


state_view = endpoint(get=show)
action_view = endpoint(post=act)
