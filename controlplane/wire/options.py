"""Sampling options as clients send them, turned into Ollama's option names, checked and bounded.

Rule: only what the client sent is passed on (an explicit option wins over ours, an absent one is ours to choose).
Options of the runner profile (num_ctx, num_gpu, ...) are checked and dropped: a differing profile would make the
backend reload the model, and the scheduler alone decides that.
Must not know: where the values go.
"""

from typing import Any

from controlplane.wire.payload import Fields

_MAX_TOKENS = 1_000_000
_MAX_STOPS = 16

_OLLAMA_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "tfs_z": (0.0, 10.0),
    "repeat_penalty": (0.0, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 100.0),
}
_OLLAMA_INTEGERS: dict[str, tuple[int, int]] = {
    "num_predict": (-2, _MAX_TOKENS),
    "seed": (-(2**63), 2**63 - 1),
    "top_k": (0, 1_000_000),
    "repeat_last_n": (-1, 1_000_000),
    "num_keep": (-1, 1_000_000),
    "mirostat": (0, 2),
}
_PROFILE_INTEGERS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread")
_PROFILE_FLAGS = ("use_mmap", "use_mlock", "numa", "low_vram", "vocab_only", "f16_kv", "logits_all")


def _stops(fields: Fields) -> list[str]:
    return [text for text in fields.texts("stop", _MAX_STOPS) if text]


def ollama_options(fields: Fields) -> dict[str, Any]:
    """The `options` object of /api. Unknown names are ignored, as Ollama does. Raises InvalidRequest."""
    options: dict[str, Any] = {}
    for name, (low, high) in _OLLAMA_NUMBERS.items():
        if (number := fields.number(name, low, high)) is not None:
            options[name] = number
    for name, (least, most) in _OLLAMA_INTEGERS.items():
        if (whole := fields.integer(name, least, most)) is not None:
            options[name] = whole
    if stops := _stops(fields):
        options["stop"] = stops
    for name in _PROFILE_INTEGERS:
        fields.integer(name, -1, 2**31 - 1)
    for name in _PROFILE_FLAGS:
        fields.flag(name)
    return options


def openai_options(fields: Fields) -> dict[str, Any]:
    """The sampling fields of a /v1 body; `max_completion_tokens` counts before `max_tokens`."""
    options: dict[str, Any] = {}
    for name, low, high in (
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
    ):
        if (number := fields.number(name, low, high)) is not None:
            options[name] = number
    if (seed := fields.integer("seed", -(2**63), 2**63 - 1)) is not None:
        options["seed"] = seed
    for name in ("max_tokens", "max_completion_tokens"):
        if (most := fields.integer(name, 1, _MAX_TOKENS)) is not None:
            options["num_predict"] = most
    if stops := _stops(fields):
        options["stop"] = stops
    return options
