"""What an engine says of its node and what it measured of the models there."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils import timezone
from django.utils.text import slugify

from controlplane.models import LanguageModel, Node
from controlplane.queries import stored_backend
from optimizer.backends.llamacpp_models import EMBEDDED_MEMORY_MB
from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import Thresholds, changed

# The embedded engine has a memory budget, not a card (optimizer/backends/llamacpp_models.py).
_DEFAULTS_OF_KIND: Mapping[str, Mapping[str, Any]] = {Node.Kind.LLAMACPP: {"gpu_memory_mb": EMBEDDED_MEMORY_MB}}


def node_name(kind: str, url: str = "", number: int = 1) -> str:
    """The name of a node, the same at every start: by its address, or by its number where it has none.

    The first node without another name has its kind's.
    """
    known = Node.objects.filter(kind=kind, url=url).exclude(url="").first()
    if known:
        return str(known.name)
    if number == 1:
        return kind
    place = slugify(urlsplit(url).netloc.replace(":", "-").replace(".", "-"))
    return f"{kind}-{place or number}"[:60]


def node_started(kind: str, url: str = "", threshold_defaults: Mapping[str, Any] | None = None, name: str = "") -> Node:
    """An engine starts on this node: from now on it is the active one and its threshold defaults hold.

    `name` is that of its kind unless given. None for `threshold_defaults` takes those of the kind. Raises
    ThresholdError for what is no valid threshold, ConfigurationError when an admin has switched the node off.
    """
    name = name or kind
    defaults = dict(_DEFAULTS_OF_KIND.get(kind, {}) if threshold_defaults is None else threshold_defaults)
    changed(Thresholds(), defaults)
    if Node.objects.filter(name=name, enabled=False).exists():
        raise ConfigurationError(
            f"the node '{name}' is switched off in the admin; start another --backend and enable it there"
        )
    node, _ = Node.objects.update_or_create(
        name=name,
        defaults={
            "kind": kind,
            "url": url,
            "threshold_defaults": defaults,
            "state": Node.State.UNKNOWN,
            "state_reason": "",
            "started_at": timezone.now(),
            "seen_at": timezone.now(),
        },
    )
    return node


def node_state(name: str, state: str, reason: str = "") -> None:
    """Note how the node is doing; the engine's tables do not depend on it."""
    Node.objects.filter(name=name).update_silently(
        state=Node.State(state), state_reason=reason[:300], seen_at=timezone.now()
    )


def save_measurement(
    backend: str,
    model: str,
    *,
    footprint_mb: float | None = None,
    vram_mb: float | None = None,
    load_s: float | None = None,
    prefill_tps: float | None = None,
    decode_tps: float | None = None,
) -> bool:
    """Keep what was measured of a model (None = not measured now); False when it has no row.

    The simulated card's figures are its own input: they are not kept as measurements of the real models.
    """
    if backend == Node.Kind.SIMULATED:
        return False
    figures = {
        "measured_footprint_mb": footprint_mb,
        "measured_vram_mb": vram_mb,
        "measured_load_s": load_s,
        "measured_prefill_tps": prefill_tps,
        "measured_decode_tps": decode_tps,
    }
    measured = {name: value for name, value in figures.items() if value is not None and value > 0}
    rows = LanguageModel.objects.filter(backend=stored_backend(backend), name=model)
    return bool(measured) and bool(rows.update_silently(**measured, measured_at=timezone.now()))
