"""Token ids sent instead of text (LangChain's OpenAIEmbeddings does so by default), turned back into text.

Rule: ids mean something only in the tokenizer that made them; clients of /v1/embeddings use cl100k_base. They are
decoded if the optional package `bpe-openai` is installed (it carries the vocabulary; nothing is downloaded), else
refused with what to set.
Must not know: HTTP, the engine.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from optimizer.core.errors import InvalidRequest

Decode = Callable[[list[int]], str]
_VOCABULARY = 100_256  # ordinary tokens of cl100k_base; what lies above are control tokens
ADVICE = "send text (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"


@cache
def decoder() -> Decode | None:
    """The cl100k_base decoder, or None without its package. The first call takes about 2 s and 100 MB."""
    try:
        package: Any = import_module("bpe_openai")
    except ImportError:
        return None
    decode: Decode = package.get_encoding("cl100k_base").decode
    return decode


def rows_of_ids(raw: Any) -> list[list[int]] | None:
    """One row of ids or several, as rows; None if this is not about ids. Raises InvalidRequest for a mixture."""
    if not isinstance(raw, list) or not raw or isinstance(raw[0], (str, bool)):
        return None
    rows = raw if isinstance(raw[0], list) else [raw]
    for row in rows:
        if not isinstance(row, list) or not row:
            raise InvalidRequest("input must hold text, or lists of token ids", param="input")
        if not all(type(item) is int and 0 <= item < _VOCABULARY for item in row):
            raise InvalidRequest("input must hold text, or token ids of cl100k_base", param="input")
    return rows


async def texts_of(rows: Sequence[list[int]]) -> list[str]:
    """The texts of rows of ids. Raises InvalidRequest where they cannot be read."""
    decode = await asyncio.to_thread(decoder)
    if decode is None:
        raise InvalidRequest(
            f"input holds token ids, which this server cannot read; {ADVICE}, or install bpe-openai on the server",
            param="input",
        )
    texts = [decode(row) for row in rows]
    if "\x00" in "".join(texts):
        raise InvalidRequest("input holds token ids of the character \\u0000", param="input")
    return texts
