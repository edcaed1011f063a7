"""/control/v1/thresholds and /control/v1/status: what is in force, and what is going on."""

from dataclasses import asdict
from typing import Any

from controlplane import thresholds
from controlplane.api.endpoint import Call, endpoint
from controlplane.api.schemas import ThresholdsIn
from optimizer.core.errors import InvalidRequest
from optimizer.core.thresholds import ThresholdError, as_dict, default, limits


async def show_thresholds(call: Call) -> Any:
    """Every threshold with its value, default, unit, range, help and source."""
    in_force = as_dict(call.service.tables.thresholds)
    return {
        "thresholds": {
            name: {"value": in_force[name], "default": default(name), **asdict(limit)}
            for name, limit in limits().items()
        }
    }


async def change_thresholds(call: Call) -> Any:
    """Change some; one revision, in force before the answer is sent."""
    call.require_admin()
    given: ThresholdsIn = call.body(ThresholdsIn)
    try:
        await call.service.in_database(thresholds.change, given.changes, f"agent {call.agent}", given.reason)
    except ThresholdError as error:
        raise InvalidRequest(str(error), param=next(iter(error.problems))) from None
    await call.service.refresh()
    return await show_thresholds(call)


async def status(call: Call) -> Any:
    """The dashboard's snapshot: slots, memory, queues, recent requests (their texts left out), the storage."""
    return await call.service.desk.snapshot()


thresholds_view = endpoint(get=show_thresholds, patch=change_thresholds)
status_view = endpoint(get=status)
