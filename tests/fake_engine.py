"""A scripted Engine: each test says what the engine replies, and sees what was asked and what is still running."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.core.events import Resident
from optimizer.core.request import Decision, Kind, Request
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue
from optimizer.ports import Completed, Delta, ModelInfo, Reply, Started

REASON = Decision("selection", "tinyllama", "complexity 0.12 is below 0.4")


@dataclass(frozen=True, slots=True)
class Pause:
    """In a script: hold here until the event is set."""

    until: asyncio.Event


Step = Reply | Pause | Exception
Script = Callable[[Request], Sequence[Step]]


def started(model: str = "tinyllama", tier: str = "default", **rest: Any) -> Started:
    fields: dict[str, Any] = {"complexity": 0.12, "cache": "miss", "queue_s": 0.25, "load_s": 0.0, "tokens_saved": 7}
    return Started(model=model, tier=tier, decisions=(REASON,), **{**fields, **rest})


def completed(text: str = "", **rest: Any) -> Completed:
    fields: dict[str, Any] = {
        "thinking": "",
        "tool_calls": (),
        "done_reason": "stop",
        "prompt_tokens": 11,
        "output_tokens": 3,
        "load_s": 0.5,
        "prefill_s": 0.01,
        "decode_s": 0.2,
        "total_s": 0.75,
        "decisions": (REASON,),
    }
    return Completed(text=text, **{**fields, **rest})


def answering(*words: str, **rest: Any) -> list[Step]:
    """Started, a delta per word, Completed with the whole text."""
    return [started(), *(Delta(word) for word in words), completed("".join(words), **rest)]


def embedding(*vectors: tuple[float, ...]) -> list[Step]:
    return [started(), completed(vectors=vectors)]


def echo(request: Request) -> list[Step]:
    """The default script: says the last message back; one vector of three numbers per input."""
    if request.kind is Kind.EMBED:
        return embedding(*((float(len(text)), 1.0, 0.5) for text in request.inputs))
    return answering("You said: ", request.messages[-1].content)


class FakeEngine:
    """An `optimizer.ports.Engine`. `running` counts iterators that are open, `closed_early` those cut short."""

    backend_name = "fake"
    simulated = False

    def __init__(self, script: Script | Sequence[Step] = echo, *, catalogue: Catalogue = STRATEGY_CATALOGUE) -> None:
        self._script: Script = script if callable(script) else lambda _: script
        self._catalogue = catalogue
        self.requests: list[Request] = []
        self.running = 0
        self.closed_early = 0
        self._began = asyncio.Event()
        self.reason = ""
        self.infos: Sequence[ModelInfo] = (
            ModelInfo("tinyllama:latest", 608.0, "sha256:abc", "llama", "1B", "Q4_0", 2048, ("completion",)),
        )
        self.in_memory: Sequence[Resident] = (Resident("tinyllama", 800.0, 760.0),)

    async def submit(self, request: Request) -> AsyncGenerator[Reply, None]:
        self.requests.append(request)
        self.running += 1
        self._began.set()
        whole = False
        try:
            for step in self._script(request):
                if isinstance(step, Exception):
                    whole = True
                    raise step
                if isinstance(step, Pause):
                    await step.until.wait()
                else:
                    yield step
            whole = True
        finally:
            self.running -= 1
            self.closed_early += not whole

    async def until_running(self, count: int) -> None:
        """Wait until so many requests are open."""
        while self.running < count:
            self._began.clear()
            await asyncio.wait_for(self._began.wait(), 5)

    def catalogue(self) -> Catalogue:
        return self._catalogue

    async def models(self) -> Sequence[ModelInfo]:
        return self.infos

    async def residents(self) -> Sequence[Resident]:
        return self.in_memory

    def unready(self) -> str:
        return self.reason
