"""/control/v1/series: the overview's charts as data, from the stored minutes and hours."""

from typing import Any

from controlplane import history
from controlplane.api.endpoint import Call, endpoint
from optimizer.core.errors import InvalidRequest


async def series(call: Call) -> Any:
    """Queues, response times, speeds, cache, swaps and GPU time over ?range=, one point a step."""
    wanted = call.request.GET.get("range", "1h")
    if wanted not in history.RANGES:
        raise InvalidRequest(f"range must be one of {', '.join(history.RANGES)}", param="range")
    return await call.service.in_database(history.read, wanted)


series_view = endpoint(get=series)
