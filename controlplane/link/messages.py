"""What web and engine say to each other, and how it is written: an envelope of Redis fields, a body of JSON.

    web to engine   submit  a request            cancel  its caller left       ask  a question to the desk
                    here    every second: this web process lives, and these requests are open
    engine to web   waiting, started, delta, completed, failed    of a request (completed and failed are its last)
                    answer, failed               to a question
                    lost    a request of `here` that this engine does not know (any more)
                    pong    the engine lives: its epoch and what it serves
                    version the engine speaks another version of this

Rule: the envelope never changes, so that two releases can always tell that they do not understand each other; VERSION
moves with every change of a body. Bodies are the project's own dataclasses, read and written by pydantic.
Must not know: Redis, or what is done with a message.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from controlplane.control import Done, NotHere
from optimizer.core import errors
from optimizer.core.events import Resident
from optimizer.core.quota import Use
from optimizer.core.request import Request
from optimizer.core.tiers import Catalogue
from optimizer.ports import Completed, Delta, ModelInfo, Record, Reply, Started, Waiting

VERSION = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `id`: of the request or question; `web`: the web process it comes from or goes to."""

    kind: str
    id: str = ""
    web: str = ""
    epoch: int = 0  # of the engine that says it
    number: int = 0  # counts what is shown of an answer from 1: a gap means that something was lost
    body: bytes = b""
    version: int = VERSION

    def fields(self) -> dict[str, bytes | str | int]:
        return {
            "v": self.version,
            "kind": self.kind,
            "id": self.id,
            "web": self.web,
            "epoch": self.epoch,
            "n": self.number,
            "body": self.body,
        }

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes]) -> "Message":
        """Read an envelope. Raises KeyError, ValueError for what is none."""
        return cls(
            kind=fields[b"kind"].decode(),
            id=fields[b"id"].decode(),
            web=fields[b"web"].decode(),
            epoch=int(fields[b"epoch"]),
            number=int(fields[b"n"]),
            body=fields[b"body"],
            version=int(fields[b"v"]),
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine says of itself with every pong."""

    backend_name: str
    simulated: bool
    unready: str
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Question:
    """An `ask`: a method of the desk, by name, with its arguments."""

    name: str
    arguments: list[Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of the tree, or NotHere; any other is a fault of ours, and only its place in the log travels."""

    type: str
    message: str
    param: str | None = None
    retry_after_s: float = 0.0


class EngineFault(RuntimeError):
    """A bug in the engine's process; its log has the traceback."""


ITEMS: dict[str, type[Reply]] = {"waiting": Waiting, "started": Started, "delta": Delta, "completed": Completed}
KIND_OF: dict[type[Reply], str] = {kind: name for name, kind in ITEMS.items()}

# What may be asked of an engine, and the kind of answer. The first block is `front.Desk`.
ANSWERS: dict[str, TypeAdapter[Any]] = {
    "snapshot": TypeAdapter(dict[str, Any]),
    "steering": TypeAdapter(dict[str, Any]),
    "act": TypeAdapter(Done),
    "waiting": TypeAdapter(tuple[list[dict[str, Any]], int]),
    "record": TypeAdapter(Record | None),
    "cache": TypeAdapter(dict[str, Any]),
    "use_of": TypeAdapter(Use),
    "revise": TypeAdapter(None),
    "first_frame": TypeAdapter(str),
    "metrics": TypeAdapter(str),
    "models": TypeAdapter(tuple[ModelInfo, ...]),
    "residents": TypeAdapter(tuple[Resident, ...]),
    "refresh": TypeAdapter(Facts),
    "flush": TypeAdapter(None),
}

_BODIES: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (Request, Question, Facts, Problem, *ITEMS.values())
}
_OPEN = TypeAdapter(list[str])


def written(value: Any, adapter: TypeAdapter[Any] | None = None) -> bytes:
    """A body. (Python's own writer: it keeps infinity, where pydantic's writes null.)"""
    adapter = adapter or _BODIES[type(value)]
    return json.dumps(adapter.dump_python(value), separators=(",", ":")).encode()


def read(body: bytes, kind: type[Any]) -> Any:
    """The value of a body. Raises ValueError for what is none (another release's, or a bug)."""
    return _BODIES[kind].validate_json(body)


def open_requests(body: bytes) -> list[str]:
    """The ids in a `here`."""
    return _OPEN.validate_json(body)


def problem_of(error: BaseException) -> Problem:
    """An error as it travels."""
    known = isinstance(error, errors.NarrowgaugeError | NotHere)
    return Problem(
        type=type(error).__name__ if known else "",
        message=str(error) if known else "internal error; the engine's log has it",
        param=getattr(error, "param", None) if known else None,
        retry_after_s=float(getattr(error, "retry_after_s", 0.0)) if known else 0.0,
    )


def error_of(problem: Problem) -> Exception:
    """The error that travelled, of its own type again."""
    if problem.type == "NotHere":
        return NotHere(problem.message)
    kind = getattr(errors, problem.type, None) if problem.type else None
    if kind is None or not issubclass(kind, errors.NarrowgaugeError):
        return EngineFault(problem.message)
    if issubclass(kind, errors.ModelNotFound):
        return kind(problem.message.removeprefix("model '").removesuffix("' not found"))
    if issubclass(kind, errors.RequestError):
        return kind(problem.message, param=problem.param)
    if issubclass(kind, errors.Refused):
        return kind(problem.message, retry_after_s=problem.retry_after_s)
    return kind(problem.message)


def mismatch(other: int) -> errors.BackendUnavailable:
    """What is said where two releases meet."""
    return errors.BackendUnavailable(
        f"web and engine are of different releases (link versions {VERSION} and {other}); restart the older one"
    )
