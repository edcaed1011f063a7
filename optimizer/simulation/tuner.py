"""The tuner's search: every candidate replayed on the same recorded pieces, and judged against the present setting.

Rule: pure; one search changes nothing. Must not know: where recordings come from, who applies what is found.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import Catalogue
from optimizer.core.tuning import Candidate, Figures, Verdict, best, candidates, judge
from optimizer.simulation.replay import REPLAYABLE, replay
from optimizer.simulation.workload import Arrival


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, what the pieces became under it, and the verdict."""

    candidate: Candidate
    figures: Sequence[Figures]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Search:
    """All trials of one cycle; `found` is the accepted one with the largest gain."""

    now: Sequence[Figures]
    trials: Sequence[Trial]
    found: Trial | None
    untried: Sequence[Candidate]  # a replay cannot show their effect, so they are never proposed


def search(
    parts: Sequence[Sequence[Arrival]],
    thresholds: Thresholds,
    catalogue: Catalogue,
    resting: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Search:
    """Replay and judge every candidate. `progress(done, total)` is called after each setting.

    Raises ConfigurationError when the recording cannot be replayed here.
    """
    wished = candidates(thresholds, resting)
    tried = [candidate for candidate in wished if set(candidate.change) <= REPLAYABLE]
    now = [replayed.figures for replayed in replay(parts, thresholds, catalogue)]
    progress(1, len(tried) + 1)
    trials = []
    for number, candidate in enumerate(tried):
        setting = changed(thresholds, candidate.change)
        figures = [replayed.figures for replayed in replay(parts, setting, catalogue)]
        trials.append(Trial(candidate, figures, judge(now, figures)))
        progress(number + 2, len(tried) + 1)
    accepted = best([(trial.candidate, trial.verdict) for trial in trials])
    found = next((trial for trial in trials if accepted and trial.candidate is accepted[0]), None)
    return Search(now, trials, found, [candidate for candidate in wished if candidate not in tried])
