"""How complex a task is: the strategy's four factors, each 0..1, read as a percentile of recent traffic.

Rule: only the user's ask is scored, never the system prompt (half of long agent prompts would count as complex);
each factor saturates, so that no raw unit swamps the others; hints the caller gave win over guesses.
The percentile makes the strategy's cuts mean what they say: above 0.8 is the top fifth of this traffic.
Nothing here is trained: text scorers fall to random on tasks they have not seen (research/quality.md, Routing). The
guesses count plain signs, and an agent's own outcomes (selection.py) do the learning.
Must not know: tiers, models, agents' history.
"""

import bisect
import math
import re
from collections import deque
from dataclasses import dataclass

from optimizer.core.request import Task
from optimizer.core.thresholds import Thresholds

# Saturation scales: the value at which a factor reaches 1 - 1/e = 0.63.
REASONING_STEPS = 4.0
CONTEXT_CHARACTERS = 4000.0  # about 1000 tokens
OUTPUT_LINES = 60.0
EXPERT_SIGNS = 2.0

READ_CHARACTERS = 1500  # of a long ask the start and the end are read, this much of each
SLIGHT = 0.3  # a factor below this is not worth naming in a reason
SHORT_CHARACTERS = 400  # about 100 tokens

TRAFFIC = 500  # recent asks that the percentile is read against
# Before traffic has been seen: the raw scores at 2.5 %, 7.5 %, ... 97.5 % of the two development sets of prompts,
# half of the weight each, asked by an agent of middling expertise (docs/evaluation.md, Routing).
COLD_SCORES = (
    0.068,
    0.072,
    0.08,
    0.098,
    0.1,
    0.108,
    0.127,
    0.149,
    0.16,
    0.181,
    0.203,
    0.226,
    0.242,
    0.263,
    0.286,
    0.304,
    0.331,
    0.367,
    0.416,
    0.49,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROOF = _words("prove proves proof proofs theorem lemma induction derive derivation")
_STEPS = _PROOF | _words(
    "why how explain compare contrast evaluate analyze analyse architect architecture tradeoff tradeoffs reason "
    "reasoning step because therefore if then unless given assume assuming assumption optimize optimise debug "
    "calculate compute solve find determine total remaining each every per times percent most least always "
    "best"
)
_LONG_ANSWER = _words(
    "write implement build create generate draft essay article report program class module refactor design document "
    "test tests script story plan"
)
_EXPERT = _words(
    "theorem integral derivative probability matrix eigenvalue eigenvalues eigenvector eigenvectors quantum molecule "
    "molecules molecular enzyme enzymes protein proteins diagnosis diagnose diagnosed statute statutory constitution "
    "constitutional jurisdiction liability liable macroeconomic macroeconomics equilibrium thermodynamic "
    "thermodynamics algorithm algorithms complexity concurrency concurrent distributed kernel cryptography "
    "cryptographic neural gradient bayes bayesian regression ethics ethical philosophy philosophical metaphysics "
    "metaphysical epistemology epistemic"
)
_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FORMULA = re.compile(r"[∑∫√≤≥∂π]|\\[a-z]+\{|\^\{?\d")
_CODE = re.compile(
    r"```|>>> |[;{}][ \t]*\n|\b(?:def|func|fn|void|class) \w+|\b(?:function|python|javascript|sql)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Factors:
    """The strategy's four factors, each 0..1. `character` says in words what the ask is, for the reason."""

    reasoning: float
    context: float
    output: float
    expertise: float
    character: str = "short question"

    def score(self, thresholds: Thresholds) -> float:
        """Their weighted average, 0..1; the weights are thresholds."""
        weights = (
            thresholds.weight_reasoning,
            thresholds.weight_context,
            thresholds.weight_output,
            thresholds.weight_expertise,
        )
        values = (self.reasoning, self.context, self.output, self.expertise)
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def factors(ask: str, task: Task) -> Factors:
    """Factors of one ask; `task` holds the caller's hints, None where it said nothing.

    The task's context counts as context only, whether or not it already stands in the ask.
    """
    size = len(ask) if task.context in ask else len(ask) + len(task.context)
    own = ask.replace(task.context, "", 1) if task.context else ask
    text = own if len(own) <= 2 * READ_CHARACTERS else f"{own[:READ_CHARACTERS]}\n{own[-READ_CHARACTERS:]}"
    words = _WORD.findall(text.lower())
    numbers = len(_NUMBER.findall(text))
    steps = task.reasoning_steps
    lines = task.expected_lines
    proofs, signs_of_steps, questions = _among(words, _PROOF), _among(words, _STEPS), min(text.count("?"), 3)
    guessed_steps = 2.0 * proofs + 0.6 * signs_of_steps + 0.25 * min(numbers, 12) + 0.3 * questions
    code = _CODE.search(text) is not None
    guessed_lines = 5.0 + 20.0 * _among(words, _LONG_ANSWER) + 40.0 * code
    signs = saturated(_among(words, _EXPERT) + len(_FORMULA.findall(text)), EXPERT_SIGNS)
    reasoning = saturated(guessed_steps if steps is None else steps, REASONING_STEPS)
    context = saturated(size, CONTEXT_CHARACTERS)
    output = saturated(guessed_lines if lines is None else lines, OUTPUT_LINES)
    level = task.expertise_level
    named = {
        "multi-step " + _kind(words, numbers): reasoning,
        "large context": context,
        "code task" if code else "long answer": output,
        "expert domain": signs,  # not the level: that is the agent's on every request, and says nothing of this one
    }
    strongest = max(named, key=lambda name: named[name])
    plain = "short question" if len(ask) <= SHORT_CHARACTERS else "plain request"
    return Factors(
        reasoning=reasoning,
        context=context,
        output=output,
        expertise=signs if level is None else (min(1.0, max(0.0, level)) + signs) / 2,
        character=strongest if named[strongest] >= SLIGHT else plain,
    )


def saturated(value: float, scale: float) -> float:
    """1 - exp(-value/scale): 0 at 0, 0.63 at `scale`, never above 1."""
    return 1.0 - math.exp(-max(0.0, value) / scale)


def _among(words: list[str], signs: frozenset[str]) -> int:
    return sum(word in signs for word in words)


def _kind(words: list[str], numbers: int) -> str:
    if not _PROOF.isdisjoint(words):
        return "proof"
    return "calculation" if numbers >= 3 else "reasoning"


class Traffic:
    """Recent raw scores, to read a new one as a percentile."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(COLD_SCORES)
        self._sorted: list[float] = sorted(COLD_SCORES)

    def percentile(self, score: float) -> float:
        """Share of recent traffic below `score`, ties counted half; 0..1."""
        below = bisect.bisect_left(self._sorted, score)
        ties = bisect.bisect_right(self._sorted, score) - below
        return (below + ties / 2) / len(self._sorted)

    def add(self, score: float) -> None:
        self._recent.append(score)
        bisect.insort(self._sorted, score)
        if len(self._recent) > TRAFFIC:
            gone = self._recent.popleft()
            del self._sorted[bisect.bisect_left(self._sorted, gone)]
