"""What the policies on the request path cost; not a test, as no assertion on time is safe on a shared machine.

python -m tests.core.bench_policies
"""

import random
import time
from collections.abc import Callable

import numpy as np

from optimizer.core import caching, compression
from optimizer.core.caching import CacheEntry, ResponseCache
from optimizer.core.complexity import COLD_SCORES
from optimizer.core.request import AgentProfile, CacheMode, Kind, Message, Request
from optimizer.core.selection import Selector
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE, CompressionLevel
from optimizer.embedding import default_embedder
from optimizer.tokens import LlamaTokenCounter

ENTRIES = 10_000
ROUNDS = 300
PROMPT = (
    "Please could you explain, step by step, why the deployment of service {n} on port {n} failed at 10:15:00 and "
    "what we should change in config/app-{n}.yaml so that it does not happen again? Thank you very much in advance."
)


def report(what: str, work: Callable[[int], object]) -> None:
    """CPU time of `work` in this thread, milliseconds."""
    times = []
    for number in range(ROUNDS):
        began = time.thread_time()
        work(number)
        times.append((time.thread_time() - began) * 1000)
    p50, p95 = np.percentile(times, [50, 95])
    print(f"{what:48} p50 {p50:.3f} ms   p95 {p95:.3f} ms")


def filled_cache() -> ResponseCache:
    """One partition of entries that are all much alike: every look-up has five neighbours above the floor."""
    dice = np.random.default_rng(1)
    vectors = dice.standard_normal((ENTRIES, 256)).astype(np.float32)
    vectors[:, 0] += 40.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cache = ResponseCache(ENTRIES, 1e9)
    for n, vector in enumerate(vectors):
        question = f"How do I expose port {n} in docker compose?"
        cache.put(CacheEntry(f"k{n}", "p", "a", "g", "m", question, "yes", "", "stop", 1, 1, vector, 0.0), 0.0)
    return cache


def main() -> None:
    embed, count = default_embedder(), LlamaTokenCounter()
    report("embed a short prompt", lambda n: embed([f"How do I expose port {n} in docker compose?"]))
    report("prepare and embed a prompt for the cache", lambda n: embed([caching.comparable(PROMPT.format(n=n))]))
    cache, vector = filled_cache(), embed(["How do I expose a port in docker compose?"])[0]
    vector = cache.entries()[0].embedding if cache.entries()[0].embedding is not None else vector

    def look_up(n: int) -> object:
        question = f"How do I expose port {2 * ENTRIES + n} in docker compose?"
        return cache.get_semantic("p", question, vector, CacheMode.STRICT, 1.0, floor_light=0.95, floor_strict=0.7)

    report(f"search and guard among {ENTRIES} entries", look_up)
    report(
        "compress a prompt, aggressive",
        lambda n: compression.compress(PROMPT.format(n=n), CompressionLevel.AGGRESSIVE, count),
    )
    selector, agent, dice = Selector(), AgentProfile("a", "sonnet"), random.Random(1)
    for _ in range(500):
        selector.traffic.add(dice.choice(COLD_SCORES))

    def decide(n: int) -> object:
        asked = Request(f"r{n}", "a", Kind.CHAT, (Message("user", PROMPT.format(n=n)),))
        return selector.select(asked, agent, STRATEGY_CATALOGUE, Thresholds(), wait_s=lambda model: 0.0)

    report("choose a tier", decide)


if __name__ == "__main__":
    main()
