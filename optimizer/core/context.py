"""Fitting a conversation into a model's window, and telling the model what was left out.

Rule: below the threshold nothing is touched. Above it the older half is summarised (beyond so many messages); if
that is not enough, the system prompt, the messages that bear on the question and the latest ones are kept, each once,
in order, tool calls with their results. The current turn (the last user message and all after it) is never cut: if it
does not fit with the system prompt, the request is refused.
What is removed is announced at the end of the first system message: chat templates accept one there, and a prefix
up to it stays byte-equal. The boundary of the older half moves in steps, so that a summary, and with it the prefix
that a KV cache holds, stays the same for several turns.
Must not know: who writes a summary, which model, how long that takes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from optimizer.core.errors import ContextOverflow
from optimizer.core.relevance import Embed, relevance, telling
from optimizer.core.request import Message
from optimizer.core.thresholds import Thresholds

Count = Callable[[str], int]
Summarise = Callable[[tuple[Message, ...]], str | None]

# Role markers and separators of a chat template, charged once a message: tinyllama's "<|user|>\n...</s>\n" is plain
# text and costs 9 in its own vocabulary; the ChatML of qwen and deepseek costs 5. The larger one keeps budgets safe.
MESSAGE_OVERHEAD_TOKENS = 9
_STEP = 4  # messages by which the boundary of the older half moves
_SUMMARY_SHARE = 0.25  # of the window that a summary may take at most, whatever it replaces


@dataclass(frozen=True, slots=True)
class Fitted:
    """`dropped` and `summarised` count messages; `note` is a sentence for the record, "" when nothing was done."""

    messages: tuple[Message, ...]
    tokens_before: int
    tokens_after: int
    dropped: int = 0
    summarised: int = 0
    note: str = ""


def tokens(messages: Sequence[Message], count: Count) -> int:
    """What messages cost in the window, template overhead and tool calls included, images not."""
    return sum(
        MESSAGE_OVERHEAD_TOKENS
        + count(m.content)
        + count(m.thinking)
        + sum(count(json.dumps(dict(call), default=str)) for call in m.tool_calls)
        for m in messages
    )


def fit(
    messages: tuple[Message, ...],
    *,
    window_tokens: int,
    reserve_tokens: int,
    thresholds: Thresholds,
    count: Count,
    embed: Embed | None,
    summarise: Summarise | None = None,
) -> Fitted:
    """The conversation within a window of which `reserve_tokens` are kept for the answer.

    `summarise` is given the older messages and returns a finished summary, or None while there is none (an
    extractive one stands in, as it does for a summary that is too long). Raises ContextOverflow when the system
    prompt and the current turn alone do not fit.
    """
    before = tokens(messages, count)
    limit = window_tokens - reserve_tokens
    target = min(int(window_tokens * thresholds.context_fill), limit)
    if before <= target:
        return Fitted(messages, before, before)

    older = older_part(messages, thresholds)
    summary = _summary(older, min(int(window_tokens * _SUMMARY_SHARE), target), thresholds, count, summarise)
    for kept in _attempts(messages, older if summary else (), thresholds, embed):
        fitted = _build(messages, kept, older if summary else (), summary, before, count)
        if fitted.tokens_after <= target:
            return fitted
    least = _build(messages, _minimum(messages), (), "", before, count)
    if least.tokens_after <= limit:
        return least
    needed = tokens([messages[i] for i in _minimum(messages)], count)
    raise ContextOverflow(
        f"the system prompt and the current turn have about {needed} tokens; the model's window of "
        f"{window_tokens} leaves {max(0, limit)} beside the answer. Shorten the message or name a model with a "
        "larger window.",
        param="messages",
    )


def select(
    messages: Sequence[Message], question: str, *, relevant: int, recent: int, embed: Embed | None
) -> tuple[int, ...]:
    """Indices to keep, ascending: system messages, the `relevant` that bear most on the question, the last `recent`.

    A text that was said several times is considered once, where it was said last. A tool call and its results
    count as one and stay together.
    """
    groups = _groups(messages)
    system = {i for i, message in enumerate(messages) if message.role == "system"}
    kept, latest = set(system), 0
    for group in reversed(groups):
        if latest >= recent:
            break
        kept.update(group)
        latest += len(group)
    ranked = _ranked([group for group in groups if not kept.issuperset(group)], messages, question, embed)
    for group in ranked[:relevant]:
        kept.update(group)
    return tuple(sorted(kept))


def _ranked(
    groups: list[tuple[int, ...]], messages: Sequence[Message], question: str, embed: Embed | None
) -> list[tuple[int, ...]]:
    """Groups by their bearing on the question, best first; the later of two that say the same."""
    last = {_said(messages, group): group for group in groups}
    texts = list(last)
    if not texts:
        return []
    scores = relevance(question, texts, embed)
    order = sorted(range(len(texts)), key=lambda i: (-float(scores[i]), -last[texts[i]][0]))
    return [last[texts[i]] for i in order]


def _said(messages: Sequence[Message], group: tuple[int, ...]) -> str:
    calls = [json.dumps(dict(call), default=str) for i in group for call in messages[i].tool_calls]
    return "\n".join([*(messages[i].content for i in group if messages[i].content), *calls])


def _groups(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """Indices that belong together: a tool message to the call before it. System messages are left out."""
    groups: list[tuple[int, ...]] = []
    for i, message in enumerate(messages):
        if message.role == "tool" and groups:
            groups[-1] = (*groups[-1], i)
        elif message.role != "system":
            groups.append((i,))
    return groups


def _turn_start(messages: Sequence[Message]) -> int:
    """The index of the last user message: the current turn begins there."""
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    if users:
        return users[-1]
    groups = _groups(messages)
    return groups[-1][0] if groups else len(messages)


def _minimum(messages: Sequence[Message]) -> tuple[int, ...]:
    start = _turn_start(messages)
    return tuple(i for i, message in enumerate(messages) if i >= start or message.role == "system")


def _attempts(
    messages: tuple[Message, ...], older: tuple[Message, ...], thresholds: Thresholds, embed: Embed | None
) -> Iterator[tuple[int, ...]]:
    """Sets of indices to try, from the fullest to the least; relevance is worked out only if the first fails."""
    start = _turn_start(messages)
    history, now = messages[:start], tuple(range(start, len(messages)))
    gone = set(older_indices(messages, len(older)))
    if gone:
        yield tuple(i for i in range(len(messages)) if i not in gone)
    recent = thresholds.context_recent
    question = messages[start].content if start < len(messages) else ""
    groups = _groups(history)
    system = {i for i, message in enumerate(history) if message.role == "system"}
    latest: list[int] = []
    for group in reversed(groups):
        if len(latest) >= recent:
            break
        latest += group
    ranked = _ranked([g for g in groups if g[0] not in latest], history, question, embed)[: thresholds.context_relevant]
    for many in range(len(ranked), -1, -1):
        relevant = {i for group in ranked[:many] for i in group}
        yield (*sorted(system | relevant | set(latest)), *now)
    while latest:  # then fewer of the latest, whole groups at a time
        oldest = next(group for group in groups if group[0] == min(latest))
        latest = [i for i in latest if i not in oldest]
        yield (*sorted(system | set(latest)), *now)


def _build(
    messages: tuple[Message, ...],
    kept: tuple[int, ...],
    older: tuple[Message, ...],
    summary: str,
    before: int,
    count: Count,
) -> Fitted:
    """The kept messages, with the note of what is missing in the first system message."""
    summarised = set(older_indices(messages, len(older))) - set(kept)
    dropped = len(messages) - len(kept) - len(summarised)
    told = []  # what changes least comes first, so that equal prefixes stay equal for longer
    if older:
        told += [f"[To fit the window, the first {len(older)} messages are summarised:]", summary]
    if dropped:
        told.append(f"[To fit the window, {dropped} {'more ' if older else ''}earlier messages are left out.]")
    note = "\n".join(told)
    chosen = [messages[i] for i in kept]
    if note:
        first = next((i for i, message in enumerate(chosen) if message.role == "system"), None)
        if first is None:
            chosen.insert(0, Message("system", note))
        else:
            chosen[first] = replace(chosen[first], content=f"{chosen[first].content}\n\n{note}".lstrip("\n"))
    return Fitted(
        tuple(chosen),
        before,
        tokens(chosen, count),
        dropped,
        len(summarised),
        f"{len(summarised)} older messages summarised, {dropped} left out, to fit the window" if told else "",
    )


# --- the older half ---------------------------------------------------------------------------------


def older_indices(messages: Sequence[Message], many: int) -> tuple[int, ...]:
    """Indices of the first `many` messages that are not system messages."""
    return tuple(i for i, message in enumerate(messages) if message.role != "system")[:many]


def older_part(messages: Sequence[Message], thresholds: Thresholds) -> tuple[Message, ...]:
    """The messages that a summary would replace; none up to `context_keep_messages` messages.

    Depends on the messages alone, never on the question, and grows by steps as the conversation does.
    """
    chat = [i for group in _groups(messages) for i in group]
    if len(chat) <= thresholds.context_keep_messages:
        return ()
    half = len(chat) // 2
    many = half - half % _STEP or half
    starts = [group[0] for group in _groups(messages)]
    turn = _turn_start(messages)
    while many and (chat[many] not in starts or chat[many - 1] >= turn):  # never between a call and its result
        many -= 1
    return tuple(messages[i] for i in chat[:many])


def summary_request(messages: Sequence[Message], thresholds: Thresholds | None = None) -> str | None:
    """The prompt that asks a model for the summary that `fit` needs; None when there is nothing to summarise.

    Equal for as many turns as the summary is good for, so that it can key the finished summaries.
    """
    older = older_part(messages, thresholds or Thresholds())
    if not older:
        return None
    talk = "\n".join(f"{message.role}: {message.content}" for message in older if message.content)
    return (
        "Summarise the conversation below for someone who has to continue it. Keep every fact, number, name, path, "
        "decision and open question; leave out greetings and repetition. Write short sentences, no introduction.\n\n"
        f"{talk}"
    )


def _summary(
    older: tuple[Message, ...], most: int, thresholds: Thresholds, count: Count, summarise: Summarise | None
) -> str:
    """A summary no longer than the ratio of what it replaces, nor than `most` tokens; "" when there is none."""
    if not older:
        return ""
    budget = min(int(tokens(older, count) * thresholds.compression_ratio), most)
    written = (summarise(older) or "").strip() if summarise else ""
    if written and count(written) <= budget:
        return written
    return extractive_summary(older, budget, count)


def extractive_summary(messages: Sequence[Message], budget_tokens: int, count: Count) -> str:
    """The lines of a conversation that say most, in order, with who said them; at most `budget_tokens`."""
    lines: dict[str, None] = {}
    for message in messages:
        for line in message.content.splitlines():
            if line.strip():
                said = f"{message.role}: {line.strip()}"
                lines.pop(said, None)  # what was said twice stands where it was said last
                lines[said] = None
    said_lines = list(lines)
    worth = telling([line.partition(": ")[2] for line in said_lines], None)
    chosen: set[int] = set()
    left = budget_tokens
    for i in sorted(range(len(said_lines)), key=lambda i: (-float(worth[i]), i)):
        cost = count("\n" + said_lines[i]) + 1
        if cost <= left:
            chosen.add(i)
            left -= cost
    return "\n".join(said_lines[i] for i in sorted(chosen))
