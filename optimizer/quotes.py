"""Decisions without what they quote: for records whose texts are not kept, or not for this reader.

Rule: every value of a decision that repeats what somebody wrote is named here. Must not know: who reads.
"""

from collections.abc import Mapping
from typing import Any

# cached_question: the question an answer was made for; truncated: what was cut; verdict: a guard's words about both.
QUOTES = ("cached_question", "truncated", "verdict")


def without_quotes(decision: Mapping[str, Any]) -> dict[str, Any]:
    """The decision (as a record has it) with every figure and without any text of a prompt."""
    values = {name: value for name, value in decision.get("values", {}).items() if name not in QUOTES}
    reason = str(decision.get("reason", ""))
    if decision.get("stage") == "cache" and "similar" in reason:
        reason = reason.split(";")[0]  # the guard's words may quote the question
    return {**decision, "reason": reason, "values": values}
