"""Predicts how long an answer will be from the agent's own history on a model.

Rule: a moving average that starts at the tier's typical length, so that a new agent is neither favoured
nor punished. Must not know: the text, or how the prediction is used.
"""

from collections import OrderedDict

from optimizer.core.tiers import DEFAULT, OPUS, SONNET

# research/scheduling.md: mean output tokens of the three tiers' agents in the measured workload.
TYPICAL_TOKENS = {DEFAULT: 80, SONNET: 300, OPUS: 900}
SMOOTHING = 0.2  # weight of the newest answer: about the last ten answers count
MAX_PAIRS = 10_000  # (agent, model) pairs remembered; the least recently seen goes first


class Lengths:
    """Moving averages of output tokens per (agent, model)."""

    def __init__(self) -> None:
        self._mean: OrderedDict[tuple[str, str], float] = OrderedDict()

    def expected(self, agent: str, model: str, tier: str, cap: int) -> int:
        """Predicted output tokens, from 1 to `cap` (the answer limit)."""
        mean = self._mean.get((agent, model), float(TYPICAL_TOKENS[tier]))
        return max(1, min(cap, round(mean)))

    def observe(self, agent: str, model: str, tier: str, tokens: int) -> None:
        """Learn from a whole answer (not from one cut short by the caller)."""
        pair = (agent, model)
        before = self._mean.pop(pair, float(TYPICAL_TOKENS[tier]))
        self._mean[pair] = before + SMOOTHING * (tokens - before)
        if len(self._mean) > MAX_PAIRS:
            self._mean.popitem(last=False)
