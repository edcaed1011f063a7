"""Which web pages may call us: preflights and the Access-Control headers.

Rule: an origin is allowed by an exact match or by a pattern ending in `*`; the defaults are Ollama's own
(this machine on any port, and desktop shells). A preflight carries no key and needs none.
Must not know: routes, keys.
"""

from collections.abc import Sequence

DEFAULT_ORIGINS = (
    *(
        f"{scheme}://{host}{port}"
        for scheme in ("http", "https")
        for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")
        for port in ("", ":*")
    ),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)
_STAINLESS = "lang package-version os arch runtime runtime-version async helper-method poll-helper retry-count timeout"
_HINTS = "task-type reasoning-steps expected-lines expertise template priority deadline conversation"
_ALLOW_HEADERS = ", ".join(
    (
        "authorization, content-type, accept, user-agent, cache-control, x-requested-with, openai-beta",
        "openai-organization, openai-project",
        *(f"x-stainless-{name}" for name in _STAINLESS.split()),
        *(f"x-narrowgauge-{name}" for name in _HINTS.split()),
    )
).encode()
_SHOWN = (
    "model tier complexity cache queue-seconds load-seconds tokens-saved simulated decision queue-position eta-seconds"
)
_EXPOSE = ", ".join(("x-request-id", "retry-after", *(f"x-narrowgauge-{name}" for name in _SHOWN.split()))).encode()


class Origins:
    """The allowed origins."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._exact = frozenset(origin for origin in allowed if not origin.endswith("*"))
        self._prefixes = tuple(origin[:-1] for origin in allowed if origin.endswith("*"))

    def allows(self, origin: str) -> bool:
        """True if pages from this origin may call. A pattern `http://localhost:*` stands for any port."""
        if origin in self._exact:
            return True
        for prefix in self._prefixes:
            if origin.startswith(prefix):
                rest = origin[len(prefix) :]
                if not prefix.endswith(":") or rest.isdigit():
                    return True
        return False

    def headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        """For an ordinary answer to an allowed page; nothing for the rest, so that browsers hide it."""
        if not origin or not self.allows(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSE),
            (b"vary", b"Origin"),
        ]

    def preflight(self, methods: str) -> list[tuple[bytes, bytes]]:
        """For the answer to an allowed preflight."""
        return [
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", _ALLOW_HEADERS),
            (b"access-control-max-age", b"43200"),
        ]
