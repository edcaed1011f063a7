"""Guards: may the answer to one prompt be given to another? Similarity proposes, the guards decide.

Cosine alone is unsafe at any threshold: "port 8080" and "port 8081" are closer than most paraphrases
(research/quality.md). STRICT serves only prompts that say the same things in the same places, after a table of
synonyms; LIGHT allows other words but not other numbers, names, identifiers, opposites, questions or directions.
Rule: when in doubt, refuse. A miss costs seconds, a wrong answer trust.
Must not know: embeddings, entries, where the prompts come from.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.core.guards import vocabulary, words
from optimizer.core.guards.forms import base
from optimizer.core.guards.order import order_conflict
from optimizer.core.guards.reading import Reading, Term, read, term_class
from optimizer.core.request import CacheMode

__all__ = ["Reading", "Verdict", "compare", "read", "verdict"]

SHORT_TERMS = 15  # prompts up to this many terms may repeat a word


@dataclass(frozen=True, slots=True)
class Verdict:
    """`guard` is the one that refused, or "same" / "content" / "light" for what let it pass."""

    allowed: bool
    guard: str
    reason: str  # a sentence for the audit


def verdict(cached: str, asked: str, mode: CacheMode = CacheMode.STRICT) -> Verdict:
    """May the answer to `cached` be served for `asked`? OFF and EXACT never allow. Symmetric."""
    if mode not in (CacheMode.STRICT, CacheMode.LIGHT):
        return Verdict(False, "mode", f"cache mode {mode.value} serves no similar prompts")
    return compare(read(cached), read(asked), mode)


def compare(cached: Reading, asked: Reading, mode: CacheMode) -> Verdict:
    """As `verdict`, for prompts already read."""
    if not cached.skeleton or not asked.skeleton:
        return Verdict(False, "empty", "nothing to compare")
    if cached.skeleton == asked.skeleton:
        return Verdict(True, "same", "the same but for case, spacing, punctuation or courtesy")
    if not (cached.content and asked.content):
        return Verdict(False, "empty", "only small words: their meaning lies outside the question")
    only_cached = _surplus(cached.terms, cached.counts - asked.counts)
    only_asked = _surplus(asked.terms, asked.counts - cached.counts)
    refusal = _refused_fact(only_cached, only_asked) or _refused_grammar(cached, asked)
    if refusal is None and mode is CacheMode.STRICT and not _only_fillers(only_cached, only_asked, cached, asked):
        refusal = Verdict(False, "content", f"words differ: {_shown(only_cached)} / {_shown(only_asked)}")
    if refusal is None and mode is CacheMode.LIGHT:
        refusal = _refused_lightly(only_cached, only_asked)
    if refusal is not None:
        return refusal
    if conflict := order_conflict(cached.terms, asked.terms):
        return Verdict(False, "order", conflict)
    if mode is CacheMode.LIGHT:
        return Verdict(True, "light", "no number, name, opposite, question or direction differs")
    return Verdict(True, "content", "the same content in the same places")


def _surplus(terms: tuple[Term, ...], surplus: Counter[tuple[str, str]]) -> list[Term]:
    """The terms that the other text lacks, counting repeats: the last ones of each."""
    found = []
    for term in reversed(terms) if surplus else ():
        if surplus[term_class(term)] > 0:
            surplus[term_class(term)] -= 1
            found.append(term)
    return found


# --- both modes ----------------------------------------------------------------------------------

_FACTS = ("literal", "number", "identifier", "negation", "question", "modal", "tense", "logic", "symbol")
_GENERIC = frozenset({"how", "should", "can"})  # "How do I ..." and "How do you ..." ask the same


def _refused_fact(cached: list[Term], asked: list[Term]) -> Verdict | None:
    """Numbers, names of things, code and grammar may never differ."""
    for kind in _FACTS:
        mine, other = [t for t in cached if t.kind == kind], [t for t in asked if t.kind == kind]
        if mine or other:
            return Verdict(False, kind, f"{kind} differs: {_shown(mine)} / {_shown(other)}")
    return None


def _refused_grammar(cached: Reading, asked: Reading) -> Verdict | None:
    """The same negations before other words, and who is spoken of."""
    if cached.negated != asked.negated:
        return Verdict(False, "negation", f"negated differently: {', '.join(sorted(cached.negated ^ asked.negated))}")
    if _another_person(cached, asked):
        return Verdict(False, "person", "only one of them speaks of you")
    return None


def _another_person(cached: Reading, asked: Reading) -> bool:
    """True where "you" or "your" makes a difference: not in "how do I / you", not where both mean anybody."""
    if any(term.kind == "question" and term.key in _GENERIC for term in cached.terms):
        return False
    past = any(term.key == "past" and term.kind == "tense" for term in cached.terms)
    if cached.content == 1 or past:  # "What can you do?" / "What can I do?", "What did you ..." / "What did I ..."
        return cached.persons != asked.persons
    speaking, silent = (cached, asked) if _second(cached) else (asked, cached)
    if not _second(speaking) or _second(silent):
        return False
    return not silent.persons or "second!" in speaking.persons


def _second(reading: Reading) -> bool:
    return not reading.persons.isdisjoint({"second", "second!"})


# --- STRICT --------------------------------------------------------------------------------------

_OPTIONAL = frozenset(map(base, words.OPTIONAL))


def _only_fillers(only_cached: list[Term], only_asked: list[Term], cached: Reading, asked: Reading) -> bool:
    """True if the texts say the same, or one of them adds only words that say nothing new."""
    surplus = only_cached or only_asked
    if only_cached and only_asked:
        return False
    repeatable = _repeatable(cached.terms, asked.terms) if surplus else frozenset()
    return all(term.label or term.key in _OPTIONAL or term.key in repeatable for term in surplus)


def _repeatable(cached: tuple[Term, ...], asked: tuple[Term, ...]) -> frozenset[str]:
    """Words of short prompts that both say, so that one may say them once more: "organic (and inorganic) acids"."""
    if max(len(cached), len(asked)) > SHORT_TERMS:
        return frozenset()
    shared = {t.key for t in cached if t.kind == "word"} & {t.key for t in asked if t.kind == "word"}
    return frozenset(shared - words.QUANTITIES)


# --- LIGHT ---------------------------------------------------------------------------------------

_OPPOSITES = frozenset(frozenset(map(base, pair)) for pair in vocabulary.OPPOSITES)


def _refused_lightly(only_cached: list[Term], only_asked: list[Term]) -> Verdict | None:
    """Other words may stand in, but not opposites, quantities or names."""
    for mine in only_cached:
        for other in only_asked:
            if _opposed(mine.key, other.key):
                return Verdict(False, "antonym", f"opposites: {mine.key} / {other.key}")
    surplus = only_cached + only_asked
    if loaded := [term for term in surplus if term.key in words.QUANTITIES]:
        return Verdict(False, "quantity", f"how much or which differs: {_shown(loaded)}")
    if names := [term for term in surplus if term.name]:
        return Verdict(False, "name", f"a name stands in one only: {_shown(names)}")
    return None


def _opposed(a: str, b: str) -> bool:
    return frozenset((a, b)) in _OPPOSITES or _reversed(a, b) or _reversed(b, a)


def _reversed(word: str, other: str) -> bool:
    """True for install / uninstall."""
    return other.endswith(word) and other[: -len(word)] in vocabulary.REVERSING


def _shown(terms: Sequence[Term]) -> str:
    keys = [term.key if len(term.key) <= 40 else term.key[:37] + "..." for term in terms[:4]]
    return ", ".join(keys) or "nothing"
