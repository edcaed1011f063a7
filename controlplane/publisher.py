"""Publishes the live picture: one frame a second to everybody who watches, built once.

Rule: never blocks the engine and never queues up for a slow browser (the consumer drops what was not read). A frame
repeats what changed in the last `REPEAT_S`, so that a browser which missed some loses nothing; one that missed
more asks for the whole. History is bounded: a quarter of an hour of samples, a bounded timeline.
Must not know: how a frame is drawn.
"""

import json
import logging
from collections import deque
from typing import Any, NamedTuple

from channels.layers import get_channel_layer

from controlplane.activity import Activity
from controlplane.history import HITS
from controlplane.link.connection import AWAY
from controlplane.snapshot import snapshot
from controlplane.timeline import Timeline
from optimizer.runner import Runner

log = logging.getLogger("narrowgauge.publisher")

GROUP = "live"
EVERY_S = 1.0
SAMPLES = 900  # a quarter of an hour
SAMPLES_SENT = 225  # to a page that opens: every fourth
FIELDS = ("at", "waiting", "p50", "p95", "ttft", "speed", "hits", "swaps", "gpu")  # of a sample, in this order
REPEAT_S = 10.0
SPEED_OVER = 10  # samples that tokens per second are taken over
MINUTE = 60  # samples that the shares of cache hits and GPU time, and the swaps, are taken over
USES = ("prefill", "decode", "load")  # of the GPU's time, in the order of a sample's list


class Totals(NamedTuple):
    """Since the start, at one moment."""

    at: float
    tokens: int
    hits: int
    asked: int
    swaps: int
    gpu_s: tuple[float, ...]  # by use


class Publisher:
    """`publish` once a second; `first_frame` for a page that opens or has missed too much."""

    def __init__(self) -> None:
        self._samples: deque[list[Any]] = deque(maxlen=SAMPLES)
        self._totals: deque[Totals] = deque(maxlen=MINUTE + 1)
        self._timeline = Timeline()
        self._activity = Activity()
        self._number = 0
        self._sent = True

    async def publish(self, runner: Runner, at: float, intake: str = "") -> None:
        """Take a sample and send the frame of this second."""
        text = self.frame(runner, at, intake)
        layer = get_channel_layer()
        assert layer is not None
        try:
            await layer.group_send(GROUP, {"type": "live.frame", "text": text})
        except AWAY as error:
            if self._sent:
                log.warning("the live picture is not sent: %s", error)
            self._sent = False
        else:
            self._sent = True

    def frame(self, runner: Runner, at: float, intake: str = "") -> str:
        """The frame of this second, and one more sample."""
        picture = self._picture(runner, at, intake)
        self._samples.append(self._sample(runner, picture))
        self._number += 1
        _, now = runner.view()
        return _json(
            kind="frame",
            number=self._number,
            snapshot=picture,
            sample=self._samples[-1],
            bars=self._timeline.changed_since(now - REPEAT_S, now),
        )

    def first_frame(self, runner: Runner, at: float, intake: str = "") -> str:
        """The picture now, with the history."""
        picture = self._picture(runner, at, intake)
        _, now = runner.view()
        step = max(1, -(-len(self._samples) // SAMPLES_SENT))
        samples = list(self._samples)[::-1][::step][::-1]
        return _json(kind="first", number=self._number, snapshot=picture, samples=samples, bars=self._timeline.all(now))

    def _picture(self, runner: Runner, at: float, intake: str) -> dict[str, Any]:
        picture = snapshot(runner, at)
        _, now = runner.view()
        runs = self._timeline.take(reversed(runner.journal.bars), now)
        self._activity.note(runner.journal.recent, runs, now)
        picture["intake"] = intake or ("paused" if picture["paused"] else "open")
        picture["agents"] = self._agents(runner, picture, now)
        return picture

    def _agents(self, runner: Runner, picture: dict[str, Any], now: float) -> dict[str, list[Any]]:
        """Agent -> [waiting, running, requests, bad, seconds on the slots] of the last quarter of an hour."""
        agents: dict[str, list[Any]] = {
            agent: [0, 0, figures.requests, figures.bad, round(figures.busy_s, 1)]
            for agent, figures in self._activity.of_agents(now).items()
        }
        for agent, waiting in runner.scheduler.waiting_of_agents().items():
            agents.setdefault(agent, [0, 0, 0, 0, 0.0])[0] = waiting
        for slot in picture["slots"]:
            if slot["job_id"]:
                agents.setdefault(slot["agent"], [0, 0, 0, 0, 0.0])[1] += 1
        return agents

    def _sample(self, runner: Runner, picture: dict[str, Any]) -> list[Any]:
        """What the charts follow of a snapshot, as `FIELDS` says; lists are by model, in the order of the queues."""
        models = [queue["model"] for queue in picture["queues"]]
        times = [picture["response_s"].get(model) for model in models]
        self._totals.append(_totals(runner, picture))
        now, minute_ago = self._totals[-1], self._totals[0]
        earlier = self._totals[-min(SPEED_OVER + 1, len(self._totals))]
        tokens, passed_s = now.tokens - earlier.tokens, now.at - earlier.at
        asked, lasted_s = now.asked - minute_ago.asked, now.at - minute_ago.at
        used_s = [after - before for after, before in zip(now.gpu_s, minute_ago.gpu_s, strict=True)]
        return [
            round(now.at, 1),
            [queue["waiting"] for queue in picture["queues"]],
            [round(s["p50"], 2) if s and s["count"] else None for s in times],
            [round(s["p95"], 2) if s and s["count"] else None for s in times],
            round(picture["ttft_s"]["p50"], 2) if picture["ttft_s"]["count"] else None,
            round(max(0, tokens) / passed_s, 1) if passed_s > 0 else 0.0,
            round((now.hits - minute_ago.hits) / asked, 3) if asked else None,
            now.swaps - minute_ago.swaps,
            [round(seconds / lasted_s, 2) if lasted_s > 0 else 0.0 for seconds in used_s],
        ]


def _totals(runner: Runner, picture: dict[str, Any]) -> Totals:
    cache = picture["cache"]
    gpu = runner.journal.monitor.meter.totals("gpu_seconds_total")
    return Totals(
        at=picture["at"],
        tokens=picture["tokens"]["output"] + sum(flight.tokens for flight in runner.running()),
        hits=sum(cache.get(kind, 0) for kind in HITS),
        asked=sum(cache.values()) - cache.get("off", 0),
        swaps=picture["counters"]["swaps"],
        gpu_s=tuple(gpu[labels].total if (labels := (("use", use),)) in gpu else 0.0 for use in USES),
    )


def _json(**frame: Any) -> str:
    return json.dumps(frame, separators=(",", ":"))
