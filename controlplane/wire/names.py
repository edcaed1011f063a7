"""Model names as clients write them, against the names the catalogue serves.

Rule: a name is never replaced by another model's; only the `:latest` that Ollama's clients add is forgiven.
Must not know: protocols.
"""

from optimizer.core.errors import ModelNotFound
from optimizer.core.request import AUTO
from optimizer.core.tiers import TIER_SLUGS, Catalogue

_LATEST = ":latest"


def aliases(catalogue: Catalogue) -> tuple[str, ...]:
    """Names that leave the choice to us: auto, then the served tiers, strongest first."""
    return (AUTO, *(tier for tier in reversed(TIER_SLUGS) if tier in catalogue.tiers))


def resolve(asked: str, catalogue: Catalogue) -> str:
    """`Request.wanted` for a model name: an alias, or a served name. Raises ModelNotFound."""
    if asked in catalogue.models:
        return asked
    bare = asked.removesuffix(_LATEST)
    if bare in catalogue.models or bare == AUTO or bare in catalogue.tiers:
        return bare
    if bare + _LATEST in catalogue.models:
        return bare + _LATEST
    raise ModelNotFound(asked[:200])


def shown(asked: str, served: str) -> str:
    """The name for the answer: as the client wrote it if that is what ran, else what really ran."""
    return asked if asked.removesuffix(_LATEST) == served.removesuffix(_LATEST) else served


def tagged(name: str) -> str:
    """A name as Ollama lists it, always with a tag."""
    return name if ":" in name else name + _LATEST
