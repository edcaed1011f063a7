"""Word forms: every inflection of an English word to one key, and synonyms to one key.

Rule: a key need not be a word ("creat"); it only has to be the same for all forms of one word and different for
different words ("hope" / "hop", "plane" / "plan" stay apart). Prefixes are never touched: "unsafe" is not "safe".
Must not know: sentences.
"""

import re
from functools import lru_cache

from optimizer.core.guards import vocabulary

_SHORT_WITH_E = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]e")  # hope, use, site, plane
_SHORT_CLOSED = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # hop(ing), us(ing)
_VOWEL = re.compile(r"[aeiouy]")
_KEEP_E = frozenset({"paste", "theme", "bathe", "breathe", "there", "where", "none", "were", "are"})


@lru_cache(maxsize=20_000)
def base(word: str) -> str:
    """The key of a lower-case word: "retrieves", "fetching" and "get" share one. Never raises."""
    stem = inflection_stripped(word)
    return _SYNONYM_KEYS.get(stem, stem)


@lru_cache(maxsize=20_000)
def inflection_stripped(word: str) -> str:
    """Without -s, -ed, -ing and a silent final e."""
    word = vocabulary.IRREGULAR.get(word, word)
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("s") and word not in vocabulary.NOT_S and not word.endswith(("ss", "us", "is")):
        return _without_s(word)
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ing") and word not in vocabulary.NOT_ING:
        return _closed(word, word[:-3])
    if word.endswith("ed") and word not in vocabulary.NOT_ED:
        return _closed(word, word[:-2])
    return _without_e(word)


def _without_s(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return _without_e(word[:-2])
    return _without_e(word[:-1])


def _without_e(word: str) -> str:
    if len(word) <= 3 or not word.endswith("e") or word.endswith("ee") or word in _KEEP_E:
        return word
    return word if _SHORT_WITH_E.fullmatch(word) else word[:-1]


def _closed(word: str, stem: str) -> str:
    """Undo what -ed and -ing did: stopp(ed) -> stop, hop(ing) -> hope, creat(ing) stays as create's own key."""
    if len(stem) < 2 or not _VOWEL.search(stem):
        return _without_e(word)
    if stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return stem + "e" if _SHORT_CLOSED.fullmatch(stem) else stem


_SYNONYM_KEYS = {inflection_stripped(word): inflection_stripped(first) for word, first in vocabulary.SYNONYMS.items()}
