"""What can be served: the declared tiers and models, held against what the backend has on disk.

Rule: a declared model that is not installed is not served (a request for it is told how to get it), and an
installed model that nobody declared is served by its own name with cautious guesses until it is measured.
Must not know: how the backend was asked.
"""

from collections.abc import Sequence
from dataclasses import replace

from optimizer.core.tiers import DEFAULT, OPUS, SONNET, Catalogue, ModelSpec, Residency
from optimizer.ports import ModelInfo

GUESS_WINDOW = 4096  # tokens; Ollama's own default below 24 GiB of VRAM
GUESS_OVERHEAD_MB = 300  # KV cache and buffers beside the weights
SMALL_MB, MEDIUM_MB = 1500, 4500  # file sizes that the strategy's tiers suggest
# Decode is bound by memory bandwidth: speed x size is about constant (120 tok/s at 800 MB in scheduling.md).
DECODE_TPS_MB = 96_000.0
PREFILL_TPS_MB = 1_600_000.0
LOAD_MB_PER_S = 600.0


def canonical(name: str) -> str:
    """`tinyllama:latest` and `tinyllama` are one model."""
    return name.removesuffix(":latest")


def served(declared: Catalogue, installed: Sequence[ModelInfo]) -> Catalogue:
    """The catalogue of what is both known and there; tiers whose model is missing are left out."""
    infos = {canonical(info.name): info for info in installed}
    models = {
        name: _refined(spec, infos[canonical(name)])
        for name, spec in declared.models.items()
        if canonical(name) in infos
    }
    for name, info in infos.items():
        if name not in {canonical(known) for known in declared.models}:
            models[name] = guessed(info)
    tiers = {slug: tier for slug, tier in declared.tiers.items() if tier.model in models}
    return Catalogue(tiers, models)


def missing(declared: Catalogue, catalogue: Catalogue) -> list[str]:
    """Tier models that are declared but not served, for the operator."""
    return sorted({t.model for t in declared.tiers.values() if t.model not in catalogue.models})


def guessed(info: ModelInfo) -> ModelSpec:
    """A cautious spec for a model nobody declared."""
    size = max(info.size_mb, 50.0)
    footprint = size + GUESS_OVERHEAD_MB
    tier = DEFAULT if size <= SMALL_MB else SONNET if size <= MEDIUM_MB else OPUS
    window = min(info.context_length or GUESS_WINDOW, GUESS_WINDOW)
    return ModelSpec(
        name=canonical(info.name),
        tier=tier,
        footprint_mb=round(footprint),
        context_window=window,
        residency=Residency.ON_DEMAND,
        load_s=max(0.5, size / LOAD_MB_PER_S),
        prefill_tps=PREFILL_TPS_MB / footprint,
        decode_tps=DECODE_TPS_MB / footprint,
        max_tokens=max(1, window // 2),
        supports_tools="tools" in info.capabilities,
        supports_thinking="thinking" in info.capabilities,
        supports_images="vision" in info.capabilities,
    )


def _refined(spec: ModelSpec, info: ModelInfo) -> ModelSpec:
    """What the backend says a model can do is truer than what was declared."""
    if not info.capabilities:
        return spec
    return replace(
        spec,
        supports_tools="tools" in info.capabilities,
        supports_thinking="thinking" in info.capabilities,
        supports_images="vision" in info.capabilities,
    )
