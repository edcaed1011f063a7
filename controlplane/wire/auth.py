"""Who is calling: the bearer key in the Authorization header, looked up in memory.

Rule: only `Authorization: Bearer KEY` counts (`bearer` in any case); a refusal says nothing about the key.
Must not know: how keys are stored or hashed.
"""

from collections.abc import Callable

from controlplane.wire.errors import unauthorized
from optimizer.core.request import AgentProfile

AgentFor = Callable[[str], AgentProfile | None]
_LONGEST_KEY = 512  # characters; anything longer is not one of ours and is not worth hashing


def authenticate(authorization: str, agent_for: AgentFor) -> AgentProfile:
    """The agent whose key this is. Raises HttpError 401, the same one for every reason."""
    scheme, _, key = authorization.partition(" ")
    key = key.strip(" ")
    if scheme.lower() != "bearer" or not 0 < len(key) <= _LONGEST_KEY:
        raise unauthorized()
    if not key.isascii() or not key.isprintable():
        raise unauthorized()
    agent = agent_for(key)
    if agent is None:
        raise unauthorized()
    return agent
