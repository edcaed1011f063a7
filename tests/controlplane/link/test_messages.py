"""What travels arrives as it was: requests, replies, answers, errors."""

import math

import pytest

from controlplane.control import Action, Done, NotHere
from controlplane.link.messages import (
    ANSWERS,
    EngineFault,
    Facts,
    Message,
    Problem,
    error_of,
    problem_of,
    read,
    written,
)
from optimizer.core import errors
from optimizer.core.request import Kind, Priority, Request, Task
from optimizer.core.request import Message as Turn
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.ports import Completed, Delta, Started, Waiting
from tests.controlplane.test_stores import RECORD
from tests.fake_engine import completed, started

REQUEST = Request(
    id="r1",
    agent="tester",
    kind=Kind.CHAT,
    messages=(
        Turn("user", "Grüße \ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")),
        Turn("assistant", "", tool_calls=({"id": "c", "name": "f", "arguments": {"x": [1, {"y": None}]}},)),
        Turn("tool", "7", tool_call_id="c", tool_name="f", images=("aGk=",)),
    ),
    task=Task(task_type="analysis", expertise_level=0.25),
    options={"temperature": 0.5, "stop": ["a", "b"], "num_predict": 7},
    tools=({"type": "function", "function": {"name": "f"}},),
    format={"type": "object"},
    think="high",
    priority=Priority.BATCH,
    deadline_s=2.5,
    cache_write=False,
)


@pytest.mark.parametrize(
    "value",
    [
        REQUEST,
        Waiting(3, math.inf, "behind others"),
        started(),
        Delta("a", tool_calls=({"name": "f", "arguments": {}},)),
        completed("whole", vectors=((0.1, -2.0), (3.0, 4.0))),
        Facts("ollama", False, "", STRATEGY_CATALOGUE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_arrives_as_it_was(value):
    back = read(written(value), type(value))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("kind", [Request, Started, Completed])
def test_every_field_has_its_own_type_again(kind):
    value = {Request: REQUEST, Started: started(), Completed: completed("x")}[kind]
    back = read(written(value), kind)
    for name in kind.__dataclass_fields__:
        assert type(getattr(back, name)) is type(getattr(value, name)), name


@pytest.mark.parametrize(
    ("name", "value"),
    [("act", Done(Action.PIN, "m", "done", Action.UNPIN, 7)), ("record", None), ("waiting", ([{"id": "r"}], 1))],
)
def test_an_answer_arrives_as_it_was(name, value):
    assert ANSWERS[name].validate_json(written(value, ANSWERS[name])) == value


def test_a_record_arrives_as_it_was():
    back = ANSWERS["record"].validate_json(written(RECORD, ANSWERS["record"]))
    assert back == RECORD


ERRORS = [
    errors.InvalidRequest("bad", param="messages.0"),
    errors.ModelNotFound("it's"),
    errors.ContextOverflow("too long"),
    errors.SystemFull("full", retry_after_s=3.5),
    errors.DeadlineUnreachable("late", retry_after_s=1.0),
    errors.BackendUnavailable("away"),
    errors.GenerationFailed("broke off"),
    errors.Cancelled("by ann"),
    NotHere("no such model"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error):
    back = error_of(read(written(problem_of(error)), Problem))
    assert type(back) is type(error) and str(back) == str(error) and vars(back) == vars(error)


def test_a_bug_travels_without_its_text():
    back = error_of(problem_of(KeyError("a secret")))
    assert isinstance(back, EngineFault) and "secret" not in str(back)


def test_an_envelope_of_any_version_can_be_read():
    sent = Message("submit", "w-1", "w", 12, 3, b"{}", version=99)
    fields = {name.encode(): str(v).encode() if not isinstance(v, bytes) else v for name, v in sent.fields().items()}
    assert Message.of(fields) == sent
