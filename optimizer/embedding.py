"""The default embedder: static word vectors, averaged. No network, no GPU, about 0.05 ms for a short prompt.

wordllama's package brings its vectors and its tokenizer as files; they are read directly, because its own loader
falls back to downloading and its import configures the root logger.
Rule: an `Embedder` of `ports`; the same text always gives the same vector.
Here too: which embedders can be chosen (`embedder`). Must not know: what the vectors are for.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

from optimizer.core.errors import ConfigurationError
from optimizer.embedders.minilm import MinilmEmbedder
from optimizer.embedders.ollama import OllamaEmbedder
from optimizer.embedders.prepared import PreparedEmbedder
from optimizer.ports import Embedder

DEFAULT = "wordllama"
OLLAMA = "ollama:"  # and the model's name behind it
OLLAMA_URL = "http://127.0.0.1:11434"
CHOICES = "wordllama, minilm or ollama:MODEL"

WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
MAX_TOKENS = 512  # an average over more says little about any part of it


class WordllamaEmbedder:
    """Texts -> float32 unit vectors of 256 numbers; a text without tokens gives the zero vector."""

    name = "wordllama l2_supercat 256"
    max_tokens = MAX_TOKENS
    strict_floor = 0.7  # measured on the development pairs: docs/evaluation.md, "Cache"

    def __init__(self) -> None:
        """Load 16 MB of vectors from the installed package. Raises ConfigurationError if they are not there."""
        folder = _package_folder()
        self._tokenizer: Any = Tokenizer.from_file(str(_file(folder, TOKENIZER)))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        with safe_open(str(_file(folder, WEIGHTS)), framework="np") as tensors:
            self._vectors: NDArray[np.float32] = np.ascontiguousarray(
                tensors.get_tensor("embedding.weight"), np.float32
            )

    @property
    def dimensions(self) -> int:
        return int(self._vectors.shape[1])

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 256). Only the first `max_tokens` tokens of a text count."""
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            # Case and spacing folded away: 0.86 instead of 0.82 of window_dev's messages are found.
            plain = " ".join(text.lower().split())
            ids = self._tokenizer.encode(plain, add_special_tokens=False).ids[: self.max_tokens]
            if ids:
                mean = self._vectors[ids].mean(axis=0)
                out[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return out


@cache
def default_embedder() -> WordllamaEmbedder:
    """The process's one embedder. Raises ConfigurationError as WordllamaEmbedder does."""
    return WordllamaEmbedder()


def embedder(name: str = DEFAULT, *, ollama_url: str = OLLAMA_URL) -> Embedder:
    """The embedder of that name: wordllama, minilm or ollama:MODEL. All but wordllama take their time.

    Raises ConfigurationError for an unknown name, or with what to install.
    """
    if name == DEFAULT:
        return default_embedder()
    if name == "minilm":
        return MinilmEmbedder()
    if name.startswith(OLLAMA):
        return OllamaEmbedder(name.removeprefix(OLLAMA), ollama_url)
    raise ConfigurationError(f"there is no embedder {name!r}; choose {CHOICES}")


def model_on_ollama(name: str) -> str:
    """The model that an embedder of that name takes on the Ollama server; "" for the others."""
    return name.removeprefix(OLLAMA) if name.startswith(OLLAMA) else ""


def for_serving(name: str = DEFAULT, *, ollama_url: str = OLLAMA_URL) -> Embedder:
    """The embedder of that name, made fit for an event loop. Raises as `embedder` does."""
    chosen = embedder(name, ollama_url=ollama_url)
    return chosen if isinstance(chosen, WordllamaEmbedder) else PreparedEmbedder(chosen)


def _package_folder() -> Path:
    """Where wordllama is installed, without importing it."""
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("the package wordllama is not installed; run `pip install wordllama`")
    return Path(spec.submodule_search_locations[0])


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ConfigurationError(f"the installed wordllama lacks {name}; install wordllama>=0.4")
    return path
