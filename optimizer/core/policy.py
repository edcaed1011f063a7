"""When models swap: the "steady" policy.

*Stay with the loaded models. Swap another in when (A) nobody runs on or waits for what it would push out,
or (B) what it would push out has been in place for `stay` swap times and everybody who was waiting when
it came in has been started (the gate). `urgent`: (B) also fires without the gate when the newcomer is that
many times more overdue than anyone it would push out, or when what the newcomers gain outweighs that many times
what the others lose.*

Rule: pure functions of `Standing`s; the numbers in `verdict` are those of the decision tree in
docs/scheduling.md. Must not know: events, slots, how a swap is carried out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Residency


@dataclass(slots=True)  # not frozen: built anew for every decision, and frozen ones cost four times as much
class Standing:
    """How one model stands at this moment; never changed."""

    model: str
    waiting: int
    running: int
    oldest_age_s: float  # of those waiting; 0.0 when nobody waits
    overdue: float  # age / target of the one that waited longest
    in_place_s: float  # since it was loaded; 0.0 when it is not
    gate: int  # requests not yet started that were waiting when it came in
    served: bool  # in this visit the one that waited longest has been started, or nobody waits
    passed: int  # swaps made for others while it was waiting
    load_s: float
    evict_s: float
    claim: float = 0.0  # sum of 1 / target over those waiting: what a second of delay costs them, in targets
    work_s: float = 0.0  # predicted time for all those waiting, with every slot on this model
    residency: Residency = Residency.ON_DEMAND

    @property
    def busy(self) -> bool:
        return self.waiting > 0 or self.running > 0


class Rule(StrEnum):
    """Why a swap is made, or what it waits for."""

    IDLE = "idle"  # A: nobody needs what leaves
    STAYED = "stayed"  # B: stay and gate are both behind it
    URGENT = "urgent"  # B without the gate
    RESIDENT = "resident"  # an always-resident model comes back for a guest that nobody uses
    OPERATOR = "operator"
    OVERCOMMITTED = "overcommitted"
    YOUNG = "young"  # not yet: younger than the batch window
    STAY = "stay"  # not yet: the set has not had its time
    GATE = "gate"  # not yet: requests that were waiting when the set came in


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate may swap in, by which rule, and what is known of when it may."""

    swap: bool
    rule: Rule
    due_in_s: float = 0.0  # until time alone may change the verdict; 0.0 = time alone will not
    stay_s: float = 0.0  # what the present set is granted in all
    gate: int = 0  # requests still to be started


def swap_s(newcomer: Standing, leaving: Sequence[Standing]) -> float:
    """Predicted time of the swap: evictions go in parallel, then the load. Seconds."""
    return max((standing.evict_s for standing in leaving), default=0.0) + newcomer.load_s


def stay_s(leaving: Sequence[Standing], thresholds: Thresholds) -> float:
    """How long the present set may stay: `stay` times what bringing back its busy models costs. Seconds."""
    busy = [standing for standing in leaving if standing.busy]
    return thresholds.stay * (max((s.evict_s for s in leaving), default=0.0) + sum(s.load_s for s in busy))


def outweighs(newcomers: Sequence[Standing], leaving: Sequence[Standing]) -> float:
    """How many times the gain of `newcomers` (the first one leads) by coming in now exceeds the loss of `leaving`.

    The exchange argument of Smith's rule ("Various optimizers for single-stage production", 1956) with set-up
    times. Served first, the newcomers are spared the wait for the others' work; the others wait for the swap, the
    newcomers' work and their own return. A second counts by the target of whoever waits it.
    """
    return_s = max((s.evict_s for s in newcomers), default=0.0) + sum(s.load_s for s in leaving if s.busy)
    gain = sum(s.claim for s in newcomers) * sum(s.work_s for s in leaving)
    delay_s = swap_s(newcomers[0], leaving) + sum(s.work_s for s in newcomers) + return_s
    loss = sum(s.claim for s in leaving) * delay_s
    return gain / loss if loss else 0.0


def verdict(
    newcomer: Standing, leaving: Sequence[Standing], thresholds: Thresholds, beside: Sequence[Standing] = ()
) -> Verdict:
    """Whether `newcomer`, who is waited for, may push `leaving` out now; `beside` would fit in with it.

    1. Younger than the batch window: not yet.
    2. Rule A: nobody runs on or waits for what would leave: swap.
    3. The busy ones among them have been in place for less than `stay` swap times: not yet.
    4. Rule B: everybody who was waiting when they came in has been started: swap.
    5. Urgent: the newcomer is `urgent` times more overdue than anyone waiting for them, or what it and `beside`
       gain outweighs `urgent` times what they lose; and each of them has started the request that had waited
       longest for it: swap.
    6. Otherwise the gate holds it back.
    """
    if newcomer.oldest_age_s < thresholds.grace_s:  # 1
        return Verdict(False, Rule.YOUNG, due_in_s=thresholds.grace_s - newcomer.oldest_age_s)
    busy = [standing for standing in leaving if standing.busy]
    if not busy:  # 2
        return Verdict(True, Rule.IDLE)
    granted = stay_s(leaving, thresholds)
    gate = sum(standing.gate for standing in busy)
    in_place = min(standing.in_place_s for standing in busy)
    if in_place < granted:  # 3
        return Verdict(False, Rule.STAY, due_in_s=granted - in_place, stay_s=granted, gate=gate)
    if not gate:  # 4
        return Verdict(True, Rule.STAYED, stay_s=granted)
    rival = max(standing.overdue for standing in busy)
    served = all(standing.served for standing in busy)
    pressing = newcomer.overdue >= thresholds.urgent * rival
    if thresholds.urgent and served and (pressing or outweighs([newcomer, *beside], leaving) >= thresholds.urgent):  # 5
        return Verdict(True, Rule.URGENT, stay_s=granted, gate=gate)
    return Verdict(False, Rule.GATE, stay_s=granted, gate=gate)  # 6


def by_urgency(candidates: Sequence[Standing], models: int) -> list[Standing]:
    """Who may come in first: the most overdue; but before all, whoever `models` - 1 swaps have passed over."""
    return sorted(candidates, key=lambda c: (-c.passed if entitled(c, models) else 0, -c.overdue, c.model))


def entitled(candidate: Standing, models: int) -> bool:
    """It was passed over so often that nobody may come in before it: the starvation bound stands on this."""
    return candidate.passed >= max(1, models - 1)


def by_worth(loaded: Sequence[Standing]) -> list[str]:
    """Whom to evict first: idle before busy, on-demand before always-resident, the least overdue first."""
    keep = {Residency.ON_DEMAND: 0, Residency.IF_FITS: 1, Residency.ALWAYS: 2}
    return [s.model for s in sorted(loaded, key=lambda s: (s.busy, keep[s.residency], s.overdue, s.model))]
