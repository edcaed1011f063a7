"""Signing in, slowed down: after a few wrong passwords a name is refused for a while from that address.

Rule: one guard around every page that takes a password. It says how long to wait, and not whether the name exists.
Must not know: how a password is checked.
"""

import logging
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone

from controlplane.models import SignInAttempt

log = logging.getLogger("narrowgauge.sign_in")

View = Callable[..., HttpResponseBase]
FOUND = 302  # what a sign-in page answers when it has nothing (more) to ask


def slowed_down(view: View) -> View:
    """A view that signs people in by `username` and `password`, refused with 429 after too many wrong passwords."""

    @wraps(view)
    def guarded(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *arguments, **named)
        name, address = request.POST.get("username", "")[:300], address_of(request)
        wait_s = SignInAttempt.begin(name, address, timezone.now())
        if wait_s:
            log.warning("too many wrong passwords from %s: refused for %.0f s", address, wait_s)
            minutes = math.ceil(wait_s / 60)
            response = render(request, "429.html", {"minutes": minutes}, status=429)
            response["Retry-After"] = str(math.ceil(wait_s))
            return response
        response = view(request, *arguments, **named)
        if response.status_code == FOUND:
            SignInAttempt.succeeded(name, address)
        return response

    return guarded


def address_of(request: HttpRequest) -> str:
    """Where a request comes from: the peer, or what the TLS proxy in front of us says that its peer was."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    if forwarded and settings.SECURE_PROXY_SSL_HEADER:
        return forwarded.rpartition(",")[2].strip()[:64]  # the last one is the proxy's own word
    return request.META.get("REMOTE_ADDR", "")
