"""Cached answers on the virtual clock: exact repeats within a TTL, as optimizer.core.caching answers them.

Rule: keys and times only; similar questions are not modelled beyond what a recording says. Must not know: texts.
"""

from collections import OrderedDict


class Answers:
    """Answers kept for `ttl_s`, at most `most` of them (the least recently used goes first); 0 of either keeps none."""

    def __init__(self, ttl_s: float, most: int) -> None:
        self._ttl_s, self._most = ttl_s, most
        self._stored_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.hits = 0

    def has(self, model: str, key: str, now: float) -> bool:
        """Whether a request is answered from here; counts it as a hit."""
        stored_at = self._stored_at.get((model, key))
        if stored_at is None:
            return False
        if now - stored_at > self._ttl_s:
            del self._stored_at[model, key]
            return False
        self._stored_at.move_to_end((model, key))
        self.hits += 1
        return True

    def later(self, seconds: float) -> None:
        """Take up a clock that begins anew `seconds` later; the hits are counted anew as well."""
        for place in self._stored_at:
            self._stored_at[place] -= seconds
        self.hits = 0

    def keep(self, model: str, key: str, now: float) -> None:
        if key and self._ttl_s and self._most:
            self._stored_at[model, key] = now
            self._stored_at.move_to_end((model, key))
            if len(self._stored_at) > self._most:
                self._stored_at.popitem(last=False)
