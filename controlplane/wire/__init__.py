"""The two compatible protocols, OpenAI's and Ollama's, as one ASGI application without Django in its path.

Rule: everything here speaks HTTP on one side and `optimizer.ports.Engine` on the other.
Must not know: Django, the ORM, which backend generates.
"""

from controlplane.wire.app import WireApp

__all__ = ["WireApp"]
