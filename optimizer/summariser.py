"""Lets the small tier summarise the older half of a long conversation, when that costs nobody a wait.

Rule: only on a resident small model with nobody waiting for it, within a time budget, and only if the summary
invents no number; otherwise None, and the extractive summary stands in. A finished summary is a cached answer like
any other, so the next turns of the conversation find it and the prompt's prefix stays the same.
Must not know: how a summary is put into the prompt.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

from optimizer.core.errors import NarrowgaugeError
from optimizer.core.request import AgentProfile, Kind, Message, Request
from optimizer.core.tiers import DEFAULT
from optimizer.pipeline import Pipeline, Routed
from optimizer.ports import Completed, Reply

FREE_S = 0.05  # a predicted wait up to this means: loaded, and a slot is free
PROTOCOL = "summary"  # marks these requests in the records
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Run = Callable[[Request, AgentProfile], AsyncGenerator[Reply, None]]


class Summariser:
    """`run` answers one request by itself; `wait_s` predicts the wait for a model's next start, seconds."""

    def __init__(self, pipeline: Pipeline, run: Run, wait_s: Callable[[str], float]) -> None:
        self._pipeline = pipeline
        self._run = run
        self._wait_s = wait_s

    async def summary(self, routed: Routed) -> str | None:
        """The older half's summary by the small tier, or None."""
        limits = self._pipeline.thresholds
        prompt = self._pipeline.summary_prompt(routed) if limits.summary_wait_s > 0 else None
        if prompt is None or routed.request.protocol == PROTOCOL or not self._affordable(prompt):
            return None
        request = Request(
            id=f"summary-{uuid4().hex}",
            agent=routed.agent.slug,
            kind=Kind.CHAT,
            messages=(Message("user", prompt),),
            wanted=DEFAULT,
            options={"temperature": 0.0, "num_predict": limits.summary_tokens},
            protocol=PROTOCOL,
        )
        try:
            async with asyncio.timeout(limits.summary_wait_s):
                text = await self._answer(request, replace(routed.agent, compress=False, combine=False))
        except (TimeoutError, NarrowgaugeError):
            return None
        return text if faithful(text, prompt) else None

    def _affordable(self, prompt: str) -> bool:
        tier = self._pipeline.catalogue.tiers.get(DEFAULT)
        if tier is None:
            return False
        spec = self._pipeline.catalogue.models[tier.model]
        room = spec.context_window - self._pipeline.thresholds.summary_tokens
        return self._pipeline.count(prompt) < room and self._wait_s(spec.name) <= FREE_S

    async def _answer(self, request: Request, agent: AgentProfile) -> str:
        async with aclosing(self._run(request, agent)) as replies:
            async for reply in replies:
                if isinstance(reply, Completed):
                    return reply.text.strip() if reply.done_reason == "stop" else ""
        return ""


def faithful(summary: str, source: str) -> bool:
    """Whether a summary says something and has no number that its source lacks."""
    return bool(summary) and set(_NUMBER.findall(summary)) <= set(_NUMBER.findall(source))
