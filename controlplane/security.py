"""The Content-Security-Policy of every page: everything comes from here, nothing from elsewhere.

Rule: strict for scripts. Styles allow inline attributes because Plotly sets them on its SVG elements.
"""

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpResponseBase

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class ContentSecurityPolicy:
    """Middleware, in both of Django's worlds, so that it adds no thread hop."""

    sync_capable = async_capable = True

    def __init__(self, get_response):  # type: ignore[no-untyped-def]
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):  # type: ignore[no-untyped-def]
        if iscoroutinefunction(self):
            return self._later(request)
        return _with_policy(self._get_response(request))

    async def _later(self, request):  # type: ignore[no-untyped-def]
        return _with_policy(await self._get_response(request))


def _with_policy(response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
