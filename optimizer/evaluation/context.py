"""Whether the message, or the fact, that a question needs is still there, recomputed on any labelled file.

Rule: two kinds of rows. Conversations (`messages`, `question`, `gold`: window_dev.jsonl) go through the selection and
through the whole fit; long prompts with hidden facts (`text`, `facts`: needle_dev.jsonl) go through the truncation.
Must not know: where files lie, which embedder it is given.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from optimizer.core.context import fit, select, tokens
from optimizer.core.relevance import Embed
from optimizer.core.request import Message
from optimizer.core.thresholds import Thresholds
from optimizer.core.truncation import truncate

Count = Callable[[str], int]

BUDGETS = (500, 1000)  # the prompt budgets of the default and the sonnet tier
_FIT_WINDOW = 0.6  # window as a share of the conversation, so that every conversation has to be cut


def evaluate(
    rows: Iterable[Mapping[str, Any]],
    count: Count,
    embed: Embed | None,
    thresholds: Thresholds | None = None,
    budgets: tuple[int, ...] = BUDGETS,
    embed_lines: Embed | None = None,
) -> dict[str, Any]:
    """Shares from 0 to 1; None where the file has no rows of that kind.

    kept: conversations whose needed message is among system + relevant + recent. kept_facts: facts still there word
    for word; of conversations after `fit` into a window 0.6 times their size, of prompts after a blind cut to the
    smallest budget. by_budget: for prompts, facts kept `blind` and with the question `asked`, at each budget.
    over: results longer than their budget or window (must be 0). `embed_lines` rates the lines of a text that is
    cut, as the default embedder does when serving; None: `embed`.
    """
    limits = thresholds or Thresholds()
    embed_lines = embed_lines or embed
    kept: list[bool] = []
    fitted: list[bool] = []
    blind: dict[int, list[bool]] = {budget: [] for budget in budgets}
    asked: dict[int, list[bool]] = {budget: [] for budget in budgets}
    over = 0
    for row in rows:
        if "messages" in row:
            messages, gold = _conversation(row)
            question = str(row["question"])
            chosen = select(
                messages, question, relevant=limits.context_relevant, recent=limits.context_recent, embed=embed
            )
            kept.append(gold in chosen)
            there, too_long = _after_fit(messages, gold, question, limits, count, embed)
            fitted.append(there)
            over += too_long
            continue
        text = str(row["text"])
        for budget in budgets:
            cut = truncate(text, budget, count, embed=embed_lines)
            over += count(cut.text) > budget
            for fact in row["facts"]:
                blind[budget].append(fact["says"] in cut.text)
                aimed = truncate(text, budget, count, question=str(fact["asks"]), embed=embed_lines)
                over += count(aimed.text) > budget
                asked[budget].append(fact["says"] in aimed.text)
    return {
        "kept": _share(kept),
        "kept_facts": _share(fitted) if fitted else _share(blind[min(budgets)]),
        "by_budget": {
            str(budget): {"blind": _share(blind[budget]), "asked": _share(asked[budget])} for budget in budgets
        },
        "conversations": len(kept),
        "facts": len(blind[min(budgets)]),
        "over": over,
    }


def _conversation(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], int]:
    """The messages with the system prompt in front, and the needed one's index among them."""
    system = [Message("system", str(row["system"]))] if row.get("system") else []
    chat = [Message(str(m["role"]), str(m["content"])) for m in row["messages"]]
    return (*system, *chat), int(row["gold"]) + len(system)


def _after_fit(
    messages: tuple[Message, ...], gold: int, question: str, limits: Thresholds, count: Count, embed: Embed | None
) -> tuple[bool, bool]:
    """Whether the needed message's text survives the fit, and whether the result is too long."""
    whole = (*messages, Message("user", question))
    window = int(tokens(whole, count) * _FIT_WINDOW)
    reserve = window // 5
    result = fit(whole, window_tokens=window, reserve_tokens=reserve, thresholds=limits, count=count, embed=embed)
    there = any(messages[gold].content in message.content for message in result.messages)
    return there, result.tokens_after > window - reserve


def _share(found: list[bool]) -> float | None:
    return round(sum(found) / len(found), 4) if found else None
