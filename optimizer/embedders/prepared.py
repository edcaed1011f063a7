"""A slow embedder made fit for the event loop: vectors are fetched ahead of time and read without waiting.

The pipeline is synchronous and runs on the loop. Where it needs vectors that are not at hand, the call raises
`NotPrepared`; whoever drives the pipeline awaits `prepare` and asks again. Only what is really needed is ever
fetched, and an embedder that needs no preparing costs nothing.
Rule: never waits on the loop; at most `WAIT_S` for a caller. Late vectors are kept for the next who asks.
Must not know: what the vectors are for, whether the embedder is a package or a server.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.core.errors import NarrowgaugeError
from optimizer.ports import Embedder, NotPrepared

MOST = 4096  # vectors kept, the least recently used dropped first: 6 MB of 384 numbers
TOGETHER = 8  # texts in one go: a long conversation lets a single question through in between
WAIT_S = 2.0  # for the vectors of one request
REST_S = 5.0  # after a failure nobody asks for so long


class PreparedEmbedder:
    """`slow`'s vectors, read from a bounded memory. Use it on one event loop; `close` it.

    The name, window and floor are those of `slow`. It runs in one thread of its own.
    """

    def __init__(self, slow: Embedder, *, most: int = MOST, wait_s: float = WAIT_S, rest_s: float = REST_S) -> None:
        self.name = slow.name
        self.max_tokens = slow.max_tokens
        self.strict_floor = slow.strict_floor
        self._slow = slow
        self._most, self._wait_s, self._rest_s = most, wait_s, rest_s
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()  # by the text's digest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._late: set[asyncio.Task[None]] = set()  # fetches that nobody waits for any more
        self._failure, self._rest_until = "", 0.0  # why nobody asks, and until when on the loop's clock

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text, at once. Raises NotPrepared when a vector is not at hand."""
        keys = [_digest(text) for text in texts]
        if any(key not in self._vectors for key in keys):
            raise NotPrepared(partial(self.prepare, tuple(texts)))
        for key in keys:
            self._vectors.move_to_end(key)
        return np.stack([self._vectors[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)

    async def prepare(self, texts: Sequence[str], wait_s: float | None = None) -> str:
        """Fetch what is missing, waiting `wait_s` at most; "" when all is at hand, else why not, in a sentence."""
        by_key = {_digest(text): text for text in texts}
        if len(by_key) > self._most:
            return f"{len(by_key)} texts are more than the embedder's memory holds ({self._most})"
        for key in by_key.keys() & self._vectors.keys():
            self._vectors.move_to_end(key)
        missing = {key: text for key, text in by_key.items() if key not in self._vectors}
        if not missing:
            return ""
        loop = asyncio.get_running_loop()
        if loop.time() < self._rest_until:
            return self._failure
        if self._late:
            return f"the embedder {self.name} is behind with its work"
        fetch = loop.create_task(self._fetch(missing))
        try:
            done, _ = await asyncio.wait({fetch}, timeout=self._wait_s if wait_s is None else wait_s)
        except asyncio.CancelledError:
            fetch.cancel()
            raise
        if not done:
            self._late.add(fetch)
            fetch.add_done_callback(self._came_late)
            return f"the embedder {self.name} took longer than {self._wait_s:g} s"
        return self._why(fetch)

    async def close(self) -> None:
        """Give up what is under way; a call that blocks ends by its own timeout."""
        for fetch in list(self._late):
            fetch.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _fetch(self, missing: dict[bytes, str]) -> None:
        keys = list(missing)
        for start in range(0, len(keys), TOGETHER):
            some = keys[start : start + TOGETHER]
            work = partial(self._slow, [missing[key] for key in some])
            vectors: Any = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._vectors.update(zip(some, vectors, strict=True))
        while len(self._vectors) > self._most:
            self._vectors.popitem(last=False)

    def _why(self, fetch: asyncio.Task[None]) -> str:
        error = fetch.exception()
        if error is None:
            return ""
        if not isinstance(error, NarrowgaugeError):
            raise error
        self._failure = str(error)
        self._rest_until = asyncio.get_running_loop().time() + self._rest_s
        return self._failure

    def _came_late(self, fetch: asyncio.Task[None]) -> None:
        self._late.discard(fetch)
        if not fetch.cancelled():
            self._why(fetch)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
