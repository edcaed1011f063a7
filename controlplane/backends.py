"""Chooses and builds the model backend: Ollama if it answers, else the embedded engine, else the simulated card.

Rule: a choice the operator made is never replaced by another; only `auto` may fall back, and says why.
Must not know: how a backend is used.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import httpx

from optimizer import model_files
from optimizer.backends.llamacpp import LlamaCppBackend
from optimizer.backends.llamacpp_models import EMBEDDED_FILES, EMBEDDED_MEMORY_MB
from optimizer.backends.ollama import OllamaBackend
from optimizer.backends.simulated import SimulatedBackend
from optimizer.core.errors import ConfigurationError, ModelFileMissing
from optimizer.machine import MachineModel
from optimizer.ports import Backend

log = logging.getLogger("narrowgauge.backends")

NAMES = ("auto", "ollama", "llamacpp", "simulated")
PROBE_TIMEOUT_S = 2.0


def choose(
    name: str,
    *,
    ollama_urls: Sequence[str],
    models_dir: Path,
    cards: Sequence[MachineModel],
    speed: float,
    say: Callable[[str], None],
    pull: Callable[[Path], None],
    aside: Collection[str] = (),
) -> list[Backend]:
    """The backends to use, one for each node, all of one kind; the embedded engine has one.

    `pull` fetches the embedded engine's files (raises ModelFileMissing when it cannot). `cards` are the simulated ones.
    `aside` names models of an Ollama that others use: they serve no agents. Raises ConfigurationError when the
    operator's choice cannot be had.
    """
    where = ", ".join(ollama_urls)
    if name == "ollama" or (name == "auto" and any(ollama_answers(url) for url in ollama_urls)):
        say(f"Backend: Ollama at {where}")
        return [OllamaBackend(url, aside=aside) for url in ollama_urls]
    if name in ("auto", "llamacpp"):
        if name == "auto":
            say(f"No Ollama answers at {where}; using the embedded engine with small real models.")
        try:
            if model_files.missing(EMBEDDED_FILES, models_dir):
                pull(models_dir)
        except ModelFileMissing as error:
            if name == "llamacpp":
                raise ConfigurationError(str(error)) from error
            say(f"The embedded engine cannot be used: {error}")
        else:
            say(f"Backend: embedded llama.cpp, models in {models_dir}")
            return [LlamaCppBackend(models_dir)]
    card = "SIMULATED card" if len(cards) == 1 else f"{len(cards)} SIMULATED cards"
    say(f"Backend: {card}. Nothing is really generated; every answer says so.")
    return [SimulatedBackend(model, speed=speed) for model in cards]


def ollama_answers(url: str) -> bool:
    """Whether an Ollama speaks at `url`. Raises ConfigurationError for something that is no address."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"--ollama-url must start with http:// or https://, not {url!r}")
    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/version", timeout=PROBE_TIMEOUT_S, trust_env=False)
        return answer.status_code == httpx.codes.OK and "version" in answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def threshold_defaults(backend: Backend) -> dict[str, Any]:
    """Thresholds that a backend brings: the embedded engine's memory budget stands for the GPU's."""
    if backend.name == "llamacpp":
        return {"gpu_memory_mb": EMBEDDED_MEMORY_MB}
    return {}
