"""Embeddings by a model of an Ollama server.

Rule: one pinned runner profile on every call (another would reload the model), on the CPU, so that the model takes no
VRAM from the tiers. Calls block: serve it through `prepared.PreparedEmbedder`.
Must not know: the backend, the scheduler, what the vectors are for.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from optimizer.core.errors import BackendUnavailable, ConfigurationError, ModelFileMissing

MAX_TOKENS = 256  # what the small embedding models all take; longer questions take exact repeats only
TIMEOUT_S = 60.0  # a first call loads the model
PROFILE: Mapping[str, Any] = {"num_gpu": 0, "num_ctx": 2048, "num_batch": 512}  # num_gpu 0: the CPU
FOREVER = -1  # keep_alive


class OllamaEmbedder:
    """Texts -> float32 unit vectors by `model` at `url`; each call waits for the server.

    `transport` replaces the network (tests). Raises ConfigurationError for an impossible address or no model.
    """

    max_tokens = MAX_TOKENS
    strict_floor = 0.85  # as MiniLM's: sentence models rate unlike questions higher than averaged words do

    def __init__(self, model: str, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        if not model.strip():
            raise ConfigurationError("name the embedding model: ollama:MODEL, for example ollama:all-minilm")
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"Ollama's address must start with http:// or https://, not {url!r}")
        self.model = model.strip().removesuffix(":latest")
        self.name = f"ollama:{self.model}"
        self._url = url.rstrip("/")
        self._transport = transport

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text. Raises BackendUnavailable, or ModelFileMissing with the command that gets the model."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        body = {"model": self.model, "input": list(texts), "keep_alive": FOREVER, "options": dict(PROFILE)}
        try:
            answer = self._post(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendUnavailable(f"{self.name} does not answer ({type(error).__name__})") from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ModelFileMissing(f"Ollama does not have {self.model}; run `ollama pull {self.model}`")
        if answer.status_code != httpx.codes.OK:
            raise BackendUnavailable(f"{self.name} answered {answer.status_code}{_told(answer)}")
        return _unit(answer, len(texts), self.name)

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        secure = self._url.startswith("https:")  # plain HTTP needs no certificates: saves reading them
        # A connection a call: a fraction of what the model takes, and nothing to close.
        with httpx.Client(timeout=TIMEOUT_S, verify=secure, trust_env=False, transport=self._transport) as client:
            return client.post(f"{self._url}/api/embed", json=body)


def _unit(answer: httpx.Response, rows: int, name: str) -> NDArray[np.float32]:
    try:
        vectors = np.asarray(answer.json()["embeddings"], dtype=np.float32)
    except (ValueError, TypeError, KeyError):
        raise BackendUnavailable(f"{name} answered no vectors") from None
    if vectors.ndim != 2 or len(vectors) != rows or not np.isfinite(vectors).all():
        raise BackendUnavailable(f"{name} answered no vectors for {rows} texts")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _told(answer: httpx.Response) -> str:
    """Ollama's own words, shortened."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f": {str(answer.json()['error'])[:200]}"
    return ""
