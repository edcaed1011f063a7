"""The hardware advisor: what other hardware or other model files would have meant for the same traffic.

Rule: every answer is a replay through the scheduler that runs in production, against the hardware there is; what a
replay has to take for granted is said with the answer (`assumed`). Pure. Must not know: where traffic comes from, what
hardware costs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import Figures, Verdict, judge
from optimizer.simulation.experiment import machine_for
from optimizer.simulation.hardware import USUAL_CPU, CpuSpeed, Site, WhatIf, what_ifs
from optimizer.simulation.history import History
from optimizer.simulation.metrics import ModelFigures, by_model
from optimizer.simulation.replay import PIECES, figures, replay
from optimizer.simulation.workload import Arrival, poisson, strategy_agents

BUILT_IN_LOAD = 0.8  # of capacity, when too little was recorded
BUILT_IN_PIECE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a what-if would have meant. `models` holds each model's figures before and after."""

    kind: str
    claim: str
    assumed: str
    verdict: Verdict
    before: Figures
    after: Figures
    models: Mapping[str, tuple[ModelFigures, ModelFigures]]

    @property
    def sentence(self) -> str:
        """The claim, and what it would do for the model that it changes most."""
        name, (old, new) = max(
            self.models.items(), key=lambda item: abs(item[1][1].within_target - item[1][0].within_target)
        )
        all_of = f"all requests {self.before.within_target:.0%} → {self.after.within_target:.0%}"
        if round(old.within_target, 2) == round(new.within_target, 2):
            return f"{self.claim}: no difference within targets ({all_of})"
        return f"{self.claim}: {name} within target {old.within_target:.0%} → {new.within_target:.0%} ({all_of})"


def advise(
    parts: Sequence[Sequence[Arrival]],
    thresholds: Thresholds,
    catalogue: Catalogue,
    cpu: CpuSpeed = USUAL_CPU,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Every what-if that makes sense for these pieces of traffic, best first.

    `progress(done, total)` is called after each replay. Raises ConfigurationError when it cannot be replayed here.
    """
    used = [spec for name, spec in catalogue.models.items() if any(a.model == name for part in parts for a in part)]
    ideas = list(what_ifs(used, thresholds, catalogue, cpu))
    now = _replayed(WhatIf("", "", (Site(thresholds, catalogue),), ""), parts)
    progress(1, len(ideas) + 1)
    answers = []
    for number, idea in enumerate(ideas):
        answers.append((idea, _answer(idea, now, _replayed(idea, parts))))
        progress(number + 2, len(ideas) + 1)
    best = {
        idea.kind: min(a.verdict.ratio for i, a in answers if i.kind == idea.kind)
        for idea, _ in answers
        if idea.best_of
    }
    kept = [answer for idea, answer in answers if not idea.best_of or answer.verdict.ratio == best[idea.kind]]
    return sorted(kept, key=lambda answer: answer.verdict.ratio)


def built_in(thresholds: Thresholds, catalogue: Catalogue, piece_s: float = BUILT_IN_PIECE_S) -> list[list[Arrival]]:
    """Pieces of the strategy's 131 agents at 80 % of this machine's capacity, for when too little was recorded."""
    workload = poisson(strategy_agents(catalogue), machine_for(thresholds, catalogue), BUILT_IN_LOAD, piece_s)
    return [list(workload.traffic(seed).first()) for seed in range(1, PIECES + 1)]


# --- replaying -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """The pieces as they became: figures of each, and each model's over all."""

    pieces: Sequence[Figures]
    models: Mapping[str, ModelFigures]


def _replayed(idea: WhatIf, parts: Sequence[Sequence[Arrival]]) -> _Seen:
    histories: list[list[History]] = [[] for _ in parts]
    cut_short = [0.0] * len(parts)
    for number, site in enumerate(idea.sites):
        own = [[arrival for arrival in part if idea.place(arrival) == number] for part in parts]
        for piece, replayed in enumerate(replay(own, site.thresholds, site.catalogue)):
            histories[piece].append(replayed.result.history)
            cut_short[piece] += replayed.figures.cut_short * len(own[piece])
    whole = [_together(of_sites) for of_sites in histories]
    pieces = [figures(history, round(cut)) for history, cut in zip(whole, cut_short, strict=True)]
    return _Seen(pieces, by_model(whole))


def _together(histories: Sequence[History]) -> History:
    """What happened on several sites at the same time, as one."""
    first = histories[0]
    return History(
        outcomes=tuple(outcome for history in histories for outcome in history.outcomes),
        ended_at=max(history.ended_at for history in histories),
        loads=sum(history.loads for history in histories),
        evictions=sum(history.evictions for history in histories),
        gpu_s=first.gpu_s,
        stays=tuple(stay for history in histories for stay in history.stays),
        cache_hits=sum(history.cache_hits for history in histories),
    )


def _answer(idea: WhatIf, now: _Seen, then: _Seen) -> Answer:
    models = {name: (now.models[name], then.models[name]) for name in now.models}
    return Answer(
        idea.kind,
        idea.claim,
        idea.assumed,
        judge(now.pieces, then.pieces),
        _mean(now.pieces),
        _mean(then.pieces),
        models,
    )


def _mean(pieces: Sequence[Figures]) -> Figures:
    """All pieces as one; each request counts alike, the 95th percentile and swaps are the pieces' means."""
    requests = sum(piece.requests for piece in pieces)

    def weighed(name: str) -> float:
        total: float = sum(getattr(piece, name) * piece.requests for piece in pieces)
        return total / max(1, requests)

    return Figures(
        requests=requests,
        lateness=weighed("lateness"),
        mean_s=weighed("mean_s"),
        p95_s=sum(piece.p95_s for piece in pieces) / len(pieces),
        within_target=weighed("within_target"),
        swaps=sum(piece.swaps for piece in pieces) / len(pieces),
        cache_hits=weighed("cache_hits"),
        cut_short=weighed("cut_short"),
    )
