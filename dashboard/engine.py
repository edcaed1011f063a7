"""How a page reaches the running engine: the front of its request, and its loop.

Rule: pages are synchronous and run in threads; whatever touches the engine is run on the engine's own loop.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest

from controlplane.front import Front


def service_of(request: HttpRequest) -> Front:
    """The way to the engine that this process has."""
    return request.scope["service"]  # type: ignore[attr-defined]


def on_loop(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run `work` on the loop that serves, and return its result; a coroutine is awaited there."""

    async def there() -> Any:
        result = work(*arguments)
        return await result if isinstance(result, Awaitable) else result

    return async_to_sync(there)()
