"""The context window: what is kept is unique, in order, with its tool results; what is gone is announced."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core.context import (
    Fitted,
    extractive_summary,
    fit,
    older_part,
    select,
    summary_request,
    tokens,
)
from optimizer.core.errors import ContextOverflow
from optimizer.core.request import Message
from optimizer.core.thresholds import Thresholds
from optimizer.embedding import default_embedder

LIMITS = Thresholds()


def count(text: str) -> int:
    return len(text.split())


def chat(turns: int, words: int = 12) -> tuple[Message, ...]:
    """A system prompt and turns of about `words` words a message, ending with a question."""
    messages = [Message("system", "You keep notes.")]
    for n in range(turns):
        messages += [
            Message("user", f"Fact {n} " + " ".join(f"w{n}x{i}" for i in range(words))),
            Message("assistant", f"Noted {n} " + " ".join(f"v{n}x{i}" for i in range(words))),
        ]
    return (*messages, Message("user", "What was fact 2?"))


def fitted(messages: tuple[Message, ...], window: int, **more) -> Fitted:
    options = {"reserve_tokens": window // 5, "thresholds": LIMITS, "count": count, "embed": None} | more
    return fit(messages, window_tokens=window, **options)


# One turn: a question, perhaps a tool call with 1 or 2 results, an answer.
WORDS = st.sampled_from(["the pump is red", "valve 9 shut", "noted", "lunch at noon", "check berth 7 again", ""])


@st.composite
def conversations(draw) -> tuple[Message, ...]:
    messages = [Message("system", "You help.")] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(0, 9))):
        messages.append(Message("user", draw(WORDS) + draw(st.sampled_from(["", " x" * 30]))))
        for call in range(draw(st.integers(0, 2))):
            name = f"c{turn}-{call}"
            messages.append(Message("assistant", "", tool_calls=({"id": name, "name": "look", "arguments": {}},)))
            messages += [Message("tool", draw(WORDS), tool_call_id=name)] * draw(st.integers(1, 2))
        messages.append(Message("assistant", draw(WORDS)))
    return (*messages, Message("user", draw(WORDS) + " now?"))


def assert_pairs_together(messages: tuple[Message, ...]) -> None:
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in open_calls, "a result without its call"
        open_calls |= {str(call["id"]) for call in message.tool_calls}
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    assert open_calls == answered, "a call without its result"


@given(conversations(), st.integers(0, 6), st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_selection_is_ascending_unique_and_keeps_pairs(messages, relevant, recent):
    chosen = select(messages, "valve 9?", relevant=relevant, recent=recent, embed=None)
    assert list(chosen) == sorted(set(chosen))
    assert all(i in chosen for i, message in enumerate(messages) if message.role == "system")
    assert_pairs_together(tuple(messages[i] for i in chosen))
    chat_messages = [i for i, message in enumerate(messages) if message.role != "system"]
    if recent:
        assert set(chat_messages[-recent:]) <= set(chosen)


@given(conversations(), st.integers(30, 400))
@settings(max_examples=120, deadline=None)
def test_a_fit_is_within_the_window_in_order_and_keeps_the_turn(messages, window):
    try:
        result = fitted(messages, window)
    except ContextOverflow:
        least = [m for m in messages if m.role == "system"] + [messages[-1]]
        assert tokens(least, count) + 25 > window - window // 5  # the note needs a few words too
        return
    assert result.tokens_after == tokens(result.messages, count) <= window - window // 5
    assert result.messages[-1] == messages[-1]
    assert_pairs_together(result.messages)
    rest = list(messages)
    for message in result.messages:  # a subsequence of what came in, but for the system prompt with the note
        if message.role != "system":
            assert message in rest
            rest = rest[rest.index(message) + 1 :]
    removed = len([m for m in messages if m.role != "system"]) - len([m for m in result.messages if m.role != "system"])
    assert removed == result.dropped + result.summarised


def test_below_the_threshold_the_very_same_objects_come_back():
    messages = chat(3)
    result = fitted(messages, 10_000)
    assert result.messages is messages
    assert (result.dropped, result.summarised, result.note) == (0, 0, "")


def test_at_the_threshold_the_older_half_is_summarised_and_the_model_is_told():
    messages = chat(12)
    result = fitted(messages, 600)
    assert result.summarised == len(older_part(messages, LIMITS)) == 12
    assert result.dropped == 0
    assert result.messages[1:] == messages[13:]
    assert "the first 12 messages are summarised:" in result.messages[0].content
    assert "user: Fact 0" in result.messages[0].content


def test_a_finished_summary_is_used_and_one_that_is_too_long_is_not():
    messages = chat(12)
    given_to: list[tuple[Message, ...]] = []

    def summarise(older: tuple[Message, ...]) -> str:
        given_to.append(older)
        return "They noted six facts."

    assert "They noted six facts." in fitted(messages, 600, summarise=summarise).messages[0].content
    assert given_to == [older_part(messages, LIMITS)]
    assert "blah" not in fitted(messages, 600, summarise=lambda older: "blah " * 900).messages[0].content
    assert fitted(messages, 600, summarise=lambda older: None) == fitted(messages, 600)


def test_the_prefix_stays_byte_equal_for_several_turns():
    first, second = chat(12), (*chat(12), Message("assistant", "Fact 2 it is."), Message("user", "And fact 3?"))
    before, after = fitted(first, 600), fitted(second, 600)
    assert before.summarised and after.messages[: len(before.messages)] == before.messages
    assert summary_request(first) == summary_request(second)


def test_the_summary_stays_in_the_common_prefix_even_when_more_is_left_out():
    def noted(messages: tuple[Message, ...]) -> str:
        return fitted(messages, 330).messages[0].content

    first, second = chat(12), (*chat(12), Message("assistant", "Fact 2 it is."), Message("user", "And fact 3?"))
    common, left_out = noted(first).split("[To fit the window, ")[:2], noted(first).split("[To fit the window, ")[2]
    assert noted(second).startswith("[To fit the window, ".join(common)) and "more earlier messages" in left_out


def test_up_to_ten_messages_nothing_is_summarised():
    assert older_part(chat(4), LIMITS) == ()
    assert summary_request(chat(4)) is None
    result = fitted(chat(4, words=100), 500)
    assert result.summarised == 0 and result.dropped > 0


def test_the_summary_request_holds_the_older_half_and_asks_for_facts():
    prompt = summary_request(chat(12))
    assert prompt is not None and "user: Fact 0" in prompt and "Fact 11" not in prompt and "every fact" in prompt


def test_the_relevant_message_survives_a_small_window():
    notes = ["The crane is serviced every 40 days.", "Lunch is at noon.", "The tug has a crew of four."]
    messages = tuple(
        Message("user" if i % 2 == 0 else "assistant", notes[i // 2] if i % 2 == 0 and i < 6 else f"Filler {i} " * 9)
        for i in range(24)
    )
    result = fitted((*messages, Message("user", "How often is the crane serviced?")), 250, embed=default_embedder())
    assert any("every 40 days" in message.content for message in result.messages)


def test_what_was_said_twice_is_kept_once():
    messages = [Message("user", "Valve 9 is shut.")] * 4 + [Message("user", f"Other {n}") for n in range(4)]
    assert select(messages, "valve 9?", relevant=2, recent=1, embed=None)[:1] == (3,)


def test_a_turn_that_does_not_fit_is_refused_with_the_sizes():
    with pytest.raises(ContextOverflow, match=r"about 2014 tokens.*window of 1000") as error:
        fitted((Message("user", "old"), Message("user", "word " * 2005)), 1000)
    assert error.value.param == "messages"


def test_the_tool_results_of_the_current_turn_are_never_cut():
    call = Message("assistant", "", tool_calls=({"id": "a", "name": "look", "arguments": {"x": 1}},))
    turn = (Message("user", "Look it up"), call, Message("tool", "found " * 60, tool_call_id="a"))
    result = fitted((*chat(12)[:-1], *turn), 300)
    assert result.messages[-3:] == turn


def test_a_conversation_without_a_system_prompt_gets_the_note_in_one():
    result = fitted(chat(12)[1:], 500)
    assert result.messages[0].role == "system" and "summarised" in result.messages[0].content


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), WORDS), max_size=12), st.integers(0, 40))
@settings(deadline=None)
def test_an_extractive_summary_is_within_its_budget_and_in_order(said, budget):
    messages = [Message(role, text) for role, text in said]
    summary = extractive_summary(messages, budget, count)
    assert count(summary) <= budget
    assert all(line.startswith(("user: ", "assistant: ")) for line in summary.splitlines())
