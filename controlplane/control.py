"""Steering the engine by hand: pause, drain, load, pin, cancel. One way for the pages and for the API.

Rule: every action happens on the engine's loop, leaves an audit entry, and names the action that undoes it.
A paused intake, a drained node, pins and loads last until the process ends; a paused agent is stored.
Must not know: HTTP, or who may do what.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction

from controlplane import audit
from controlplane.models import Agent
from optimizer.core import events
from optimizer.core.vram import Place

if TYPE_CHECKING:
    from controlplane.service import Service

DRAIN_LOOK_S = 0.5  # how often a drain looks whether the last request has ended


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    LOAD = "load"
    UNLOAD = "unload"
    PIN = "pin"
    UNPIN = "unpin"
    CANCEL = "cancel"
    PAUSE_AGENT = "pause-agent"
    RESUME_AGENT = "resume-agent"
    DRAIN_NODE = "drain-node"
    RESUME_NODE = "resume-node"


@dataclass(frozen=True, slots=True)
class About:
    """What people are told of an action; `{target}` is filled in. `of` says what the target is, "" for none."""

    of: str
    label: str
    question: str
    done: str
    undo: Action | None = None


ABOUT: dict[Action, About] = {
    Action.PAUSE: About(
        "",
        "Pause intake",
        "Refuse new requests until somebody resumes? What waits and runs goes on.",
        "Intake is paused.",
        Action.RESUME,
    ),
    Action.RESUME: About("", "Resume intake", "Take new requests again?", "Intake is open.", Action.PAUSE),
    Action.DRAIN: About(
        "",
        "Drain",
        "Refuse new requests, let what waits and runs end, then put every model out?",
        "Draining: the models leave when the last request has ended.",
        Action.RESUME,
    ),
    Action.LOAD: About(
        "model",
        "Load",
        "Load {target} now? Models that are in its way leave when their running requests end.",
        "{target} is asked in.",
        Action.UNLOAD,
    ),
    Action.UNLOAD: About(
        "model",
        "Unload",
        "Put {target} out when its running requests end? It comes back when a request needs it.",
        "{target} is asked out.",
        Action.LOAD,
    ),
    Action.PIN: About(
        "model",
        "Pin",
        "Pin {target}? Nothing may push it out; what needs its room is refused meanwhile.",
        "{target} is pinned.",
        Action.UNPIN,
    ),
    Action.UNPIN: About(
        "model", "Unpin", "Unpin {target}? Other models may push it out again.", "{target} is unpinned.", Action.PIN
    ),
    Action.CANCEL: About(
        "request",
        "Cancel",
        "Cancel request {target}? Its caller gets an error. This cannot be undone.",
        "Request {target} is cancelled.",
    ),
    Action.PAUSE_AGENT: About(
        "agent",
        "Pause agent",
        "Refuse new requests of {target} until somebody resumes it? What it has waiting goes on.",
        "{target} is paused.",
        Action.RESUME_AGENT,
    ),
    Action.RESUME_AGENT: About(
        "agent", "Resume agent", "Let {target} send requests again?", "{target} is resumed.", Action.PAUSE_AGENT
    ),
    Action.DRAIN_NODE: About(
        "node",
        "Drain node",
        "Put nothing more on {target}? What runs there ends, what waits goes to other nodes, then its models leave.",
        "{target} is being drained.",
        Action.RESUME_NODE,
    ),
    Action.RESUME_NODE: About(
        "node", "Resume node", "Let {target} serve again?", "{target} serves again.", Action.DRAIN_NODE
    ),
}

_MODEL_EVENTS = {
    Action.LOAD: events.LoadRequested,
    Action.UNLOAD: events.EvictionRequested,
    Action.PIN: events.ModelPinned,
    Action.UNPIN: events.ModelUnpinned,
}

_NODE_EVENTS = {Action.DRAIN_NODE: events.NodeDrained, Action.RESUME_NODE: events.NodeResumed}


class NotHere(Exception):
    """What the action is about is not there (any more); the text says so."""


@dataclass(frozen=True, slots=True)
class Done:
    """An action that was carried out. `entry` is its audit entry."""

    action: Action
    target: str
    sentence: str
    undo: Action | None
    entry: int


class Control:
    """One service's controls. Call `act` on the engine's loop."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._drain: asyncio.Task[None] | None = None
        self._put_out: tuple[str, ...] = ()  # by the drain: what `resume` brings back

    @property
    def intake(self) -> str:
        """open | paused | draining | drained"""
        if not self._service.runner.view()[0].intake_paused:
            return "open"
        if self._drain is None:
            return "paused"
        return "drained" if self._drain.done() else "draining"

    async def act(self, action: Action, target: str, actor: str) -> Done:
        """Carry an action out. Raises NotHere, and BackendUnavailable while the engine starts."""
        about = ABOUT[action]
        if about.of == "agent":
            entry = await self._service.in_database(partial(_set_paused, target, action is Action.PAUSE_AGENT, actor))
            await self._service.refresh()
        else:
            self._steer(action, target)
            named = f"{about.of} {target}" if about.of else "intake"
            entry = await self._service.in_database(partial(_audited, actor, action, named))
        return Done(action, target, about.done.format(target=target), about.undo, entry)

    def _steer(self, action: Action, target: str) -> None:
        runner = self._service.runner
        if action in _MODEL_EVENTS:
            if target not in runner.catalogue().models:
                raise NotHere(f"no model '{target[:120]}' is served here")
            runner.steer(_MODEL_EVENTS[action](target))
        elif action in _NODE_EVENTS:
            if target not in runner.nodes:
                raise NotHere(f"no node '{target[:60]}'; there are {', '.join(node.name for node in runner.nodes)}")
            runner.steer(_NODE_EVENTS[action](), target)
        elif action is Action.CANCEL:
            if not runner.cancel(target):
                raise NotHere(f"request '{target[:64]}' has ended already")
        elif action is Action.RESUME:
            self._resume()
        else:
            self._stop_draining()
            runner.steer(events.IntakePaused())
            if action is Action.DRAIN:
                self._drain = asyncio.get_running_loop().create_task(self._empty())

    def _resume(self) -> None:
        self._stop_draining()
        runner = self._service.runner
        runner.steer(events.IntakeResumed())
        for model in self._put_out:
            runner.steer(events.LoadRequested(model))
        self._put_out = ()

    def _stop_draining(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self._drain = None

    async def _empty(self) -> None:
        """Wait for the last request, then put every model out."""
        runner = self._service.runner
        while True:
            view, _ = runner.view()
            if not view.waiting and not any(slot.job_id for slot in view.slots) and not view.lost:
                break
            await asyncio.sleep(DRAIN_LOOK_S)
        self._put_out = tuple(resident.model for resident in view.residents if resident.place is Place.LOADED)
        for model in self._put_out:
            runner.steer(events.EvictionRequested(model))


def _audited(actor: str, action: Action, target: str) -> int:
    return audit.record(actor, action.value, target).pk


def _set_paused(slug: str, paused: bool, actor: str) -> int:
    with transaction.atomic():
        agent = Agent.objects.select_for_update().filter(slug=slug).first()
        if agent is None:
            raise NotHere(f"no agent '{slug[:60]}'")
        agent.paused = paused
        agent.save(update_fields=["paused", "updated_at"])
        action = Action.PAUSE_AGENT if paused else Action.RESUME_AGENT
        return audit.record(actor, action.value, f"agent {slug}").pk
