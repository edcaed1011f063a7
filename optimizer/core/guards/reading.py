"""Reads a prompt into the terms that carry its meaning: words in base form, numbers, names, negations, questions.

Rule: two prompts with the same `skeleton` and `literals` differ only in case, spacing, sentence punctuation,
contractions or courtesy. What is fenced, quoted or inline code is kept to the letter.
Must not know: the other prompt it will be compared with, or what a cache is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from optimizer.core.guards import phrases, vocabulary, words
from optimizer.core.guards.forms import base, inflection_stripped
from optimizer.core.guards.tokens import Token, tokens

_ACRONYM_WORDS = {key: word.lower() for word, key in words.ACRONYMS.items()}


@dataclass(frozen=True, slots=True)
class Term:
    """One bearer of meaning. `kind` names the guard that watches it; `role` the preposition that governs it."""

    key: str
    kind: str  # word | number | identifier | literal | negation | question | modal | tense | logic | symbol
    role: str = ""
    name: bool = False  # written with a capital inside a sentence
    label: bool = False  # a noun that only says what the name beside it is: "the README file"


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt, read. `terms` are in canonical order: passives turned, instruments in front."""

    skeleton: tuple[str, ...]
    terms: tuple[Term, ...]
    counts: Counter[tuple[str, str]]  # how often each (key, class) occurs
    negated: frozenset[str]  # keys of the terms that a negation stands before
    content: int  # how many terms are more than grammar
    persons: frozenset[str]  # "first", "second"; with "!" where it cannot mean anybody


def term_class(term: Term) -> tuple[str, str]:
    """What makes two terms the same: the key, and the kind where it is grammar ("or" is no word)."""
    return term.key, term.kind if term.kind in _GRAMMAR else ""


_GRAMMAR = frozenset({"negation", "question", "modal", "tense", "logic"})


@lru_cache(maxsize=1024)
def read(text: str) -> Reading:
    """Read a prompt. Deterministic; about 0.1 ms for a short one."""
    typed = list(tokens(text))
    said = _without_courtesy(typed)
    requested = bool(said) and said[0] is not typed[0]  # something like "could you" stood before it
    skeleton = tuple(_ACRONYM_WORDS.get(token.text, token.text) for token in said if token.kind != "stop")
    said = _distributed(_reworded(said))
    if not requested and text.rstrip().endswith("?"):
        said = _asked_barely(said)
    persons = frozenset(words.PERSONAL[token.text] for token in said if token.text in words.PERSONAL)
    plain = _needs_plain_words(said)
    terms, negated = _terms(said, plain)
    content = sum(term.kind not in _GRAMMAR for term in terms)
    return Reading(skeleton, terms, Counter(map(term_class, terms)), negated, content, persons)


# --- courtesy and phrases ------------------------------------------------------------------------


def _without_courtesy(tokens: list[Token]) -> list[Token]:
    """Cut greetings, please and thanks at both ends; a prompt that is nothing else is left alone."""
    start, end = 0, len(tokens)
    while start < end:
        if tokens[start].kind == "stop":
            start += 1
        elif (
            size := _longest(phrases.COURTESY_BEFORE.get(tokens[start].text, ()), tokens, start, end)
        ) and not _means_anybody(tokens, start, size):
            start += size
        else:
            break
    while end > start:
        if tokens[end - 1].kind == "stop":
            end -= 1
        elif size := _courtesy_after(tokens, start, end):
            end -= size
        else:
            break
    return tokens[start:end] if start < end else tokens


def _means_anybody(tokens: list[Token], start: int, size: int) -> bool:
    """ "Can you have two accounts?" is a question, "Can you open two accounts?" may be a request."""
    after = tokens[start + size].text if start + size < len(tokens) else ""
    return tokens[start + size - 1].text == "you" and (after in phrases.ANYBODY_DOES or after.endswith("ly"))


def _longest(options: Sequence[tuple[str, ...]], tokens: list[Token], start: int, end: int) -> int:
    for phrase in options:
        size = len(phrase)
        if start + size <= end and all(tokens[start + i].text == word for i, word in enumerate(phrase)):
            return size
    return 0


def _courtesy_after(tokens: list[Token], start: int, end: int) -> int:
    for phrase in phrases.COURTESY_AFTER.get(tokens[end - 1].text, ()):
        first = end - len(phrase)
        if first <= start or any(tokens[first + i].text != word for i, word in enumerate(phrase)):
            continue
        before = tokens[first - 1]
        if before.kind == "stop" or (phrase[0] in phrases.BARE and before.text not in phrases.TALKED_ABOUT):
            return len(phrase)
    return 0


def _reworded(tokens: list[Token]) -> list[Token]:
    """Apply the phrase tables: openings at the beginning of a sentence, phrases anywhere."""
    out: list[Token] = []
    i, fresh, led = 0, True, False
    while i < len(tokens):
        token = tokens[i]
        if token.kind != "word":
            out.append(token)
            # After "In YAML, " the sentence proper begins.
            fresh = token.kind == "stop" and (token.text[0] != "," or led)
            led = led and not fresh
            i += 1
            continue
        size = 0
        if fresh:
            token.name = token.name and token.exact
            if token.text == "please":
                i += 1
                continue
            led = token.text in words.ROLES or token.text in words.LOGIC or token.text == "by-default"
            size = _opening(tokens, i, out)
        size = size or _replace(phrases.PHRASES, tokens, i, out)
        if not size:
            out.append(token)
            size = 1
        i += size
        fresh = False
    return out


def _distributed(tokens: list[Token]) -> list[Token]:
    """ "Low risk and high risk" as "low and high risk"."""
    return [
        token
        for i, token in enumerate(tokens)
        if not (
            i + 3 < len(tokens)
            and token.kind == "word"
            and tokens[i + 1].text in ("and", "or")
            and tokens[i + 3].text == token.text
        )
    ]


def _asked_barely(tokens: list[Token]) -> list[Token]:
    """ "Congestion control?" as "What is congestion control?"."""
    asks = any(token.text[:1] == "?" or token.text in words.ASKING for token in tokens)
    if asks or len(tokens) > 5:
        return tokens
    return [Token("?what", "word"), *tokens]


def _opening(tokens: list[Token], start: int, out: list[Token]) -> int:
    """Replace the opening of a sentence by its question term; how many tokens it took."""
    text = tokens[start].text
    if text == "what" and start + 1 < len(tokens) and tokens[start + 1].text in ("does", "do"):
        end = next((j for j in range(start, len(tokens)) if tokens[j].kind == "stop"), len(tokens))
        if end - start > 3 and tokens[end - 1].text == "mean":  # "What does DNS mean?"
            tokens[end - 1] = Token("it", "word")
            out.append(Token("?what", "word"))
            return 2
        if end - start > 3 and tokens[end - 1].text == "do":  # "What does line 42 do?"
            tokens[end - 1] = Token("it", "word")
            out.append(Token("explain", "word"))
            return 2
    if text == "how" and start + 1 < len(tokens) and tokens[start + 1].text in words.DEGREES:
        out.append(Token("?degree", "word"))
        return 1
    if size := _replace(phrases.OPENINGS, tokens, start, out):
        return size
    if text in words.YES_NO:
        out.append(Token("?" + words.YES_NO[text], "word"))
        if text in words.TENSES:
            out.append(tokens[start])
        elif text in words.BE:
            out.append(Token(_ASKED_BE, "word"))
        return 1
    return 0


def _replace(table: phrases.Table, tokens: list[Token], start: int, out: list[Token]) -> int:
    for phrase, replacement in table.get(tokens[start].text, ()):
        if _longest((phrase,), tokens, start, len(tokens)):
            out.extend(Token(word, "number" if word.isdigit() else "word") for word in replacement)
            return len(phrase)
    return 0


# --- tokens -> terms -----------------------------------------------------------------------------


def _needs_plain_words(tokens: list[Token]) -> bool:
    """True where a synonym would change the topic: "What is a method?", "the difference between get and fetch"."""
    if any(token.text in words.WEIGHED for token in tokens if token.kind == "word"):
        return True
    content = [term for token in tokens if (term := _term(token, "", True)) and term.kind not in _GRAMMAR]
    return sum(term.key not in ("explain", "describ", "clarify", "happen") for term in content) <= 1


def _terms(tokens: list[Token], plain: bool) -> tuple[tuple[Term, ...], frozenset[str]]:
    """Terms clause by clause, each clause in canonical order, and what is negated."""
    sentence: list[list[Term]] = []
    terms: list[Term] = []
    negated: set[str] = set()
    clause: list[Token] = []
    last = len(tokens) - 1
    for i, token in enumerate(tokens):
        if token.kind == "word" and token.text in _CONTEXTUAL:
            token = _in_context(token, tokens[i - 1].text if i else "", tokens[i + 1] if i < last else _END)
        if token.kind == "stop" or (token.kind == "word" and token.text in words.CLAUSES):
            sentence.append(_clause(clause, negated, plain))
            clause = [] if token.kind == "stop" else [token]
            if token.kind == "stop" and token.text[0] != ",":
                terms.extend(_conditions_last(sentence))
                sentence = []
        else:
            clause.append(token)
    sentence.append(_clause(clause, negated, plain))
    terms.extend(_conditions_last(sentence))
    return _labelled(terms), frozenset(negated)


def _labelled(terms: list[Term]) -> tuple[Term, ...]:
    """Mark the kind nouns that stand beside a name."""
    for i, term in enumerate(terms):
        if term.key in words.KIND_NOUNS and not term.name:
            beside = terms[max(i - 1, 0) : i + 2]
            named = ("identifier", "literal", "number") if term.key == "version" else ("identifier", "literal")
            if any((t.name or t.kind in named) and t.role == term.role for t in beside):
                terms[i] = replace(term, label=True)
    return tuple(terms)


def _conditions_last(sentence: list[list[Term]]) -> list[Term]:
    """ "If X, what happens?" as "What happens if X?"."""
    clauses = [clause for clause in sentence if clause]
    if len(clauses) > 1 and any(term.key == "if" and term.kind == "logic" for term in clauses[0]):
        clauses = [*clauses[1:], clauses[0]]
    return [term for clause in clauses for term in clause]


_CONTEXTUAL = words.word_set("a who one do does done doing did")
_END = Token(".", "stop")


def _in_context(token: Token, before: str, after: Token) -> Token:
    """ "Who" that only joins, "one" that is a number, "do" that is not an auxiliary."""
    if token.text == "a":
        ends = (
            after.kind == "stop" or after.text in words.ROLES or after.text in words.BE or after.text in ("and", "or")
        )
        return Token("letter-a", "word") if token.name and ends else token
    if token.text[0] == "d":
        return Token("act", "word") if after.kind == "stop" else token
    if token.text == "who" and before.isalpha() and before not in words.ASKED_FOR:
        return Token("that", "word")
    if (
        token.text == "one"
        and after.text not in words.GENERIC_ONE
        and before not in words.POINTING
        and before[:1] != "?"
    ):
        return Token("1", "number")
    return token


_ASKED_BE = "?be"  # the verb of "Is X supported by Y?", which stands before its subject


def _clause(tokens: list[Token], negated: set[str], plain: bool) -> list[Term]:
    """A clause as "instrument, verb of a passive, rest": "X is read by Y" and "Y reads X" come out alike."""
    front: list[Term] = []
    verb: list[Term] = []
    rest: list[Term] = []
    role, target = "", rest
    passive_until = -1
    negating = alternative = conjunction = False  # "tabs or spaces" = "spaces or tabs"
    pair = any(token.text in words.PAIRING for token in tokens)
    alternatives: list[Term] = []
    for i, token in enumerate(tokens):
        text = token.text if token.kind == "word" else ""
        if text == _ASKED_BE:
            passive_until = i + 10
            continue
        if text == "using" and i <= passive_until:  # "Is X using Y?"
            token, text = Token("use", "word"), "use"
        term = _term(token, role, plain)
        if text in words.ROLES:
            role = words.ROLES[text]
            if role == "by" and (verb or text == "using"):
                role, target = "", front
            elif not (target is front and role == "of"):
                target = rest
        elif text in words.BE or text in words.PERSONAL or text in words.AUXILIARIES:
            role, target = "", rest
            if text in words.BE:
                asked = i > 0 and (tokens[i - 1].text in words.ASKING or tokens[i - 1].text.startswith("?"))
                passive_until = i + (10 if asked else 3)
        if text == "and":
            conjunction = True
        if term is None:
            continue
        if text == "or":
            alternatives.append(term)
            alternative = True
            continue
        if term.kind == "negation":
            negating = True
        elif negating and term.kind in ("word", "number", "identifier", "literal"):
            negated.add(term.key)
            negating = False
        if text and i <= passive_until and _is_participle(text):
            verb.append(replace(term, role=""))
            passive_until, role = -1, ""
        else:
            target.append(term)
            coordinated = alternative or (conjunction and (pair or (term.name and len(target) > 1 and target[-2].name)))
            if coordinated and len(target) > 1 and target[-2].key > term.key:
                target[-2:] = [replace(term, role=target[-2].role), replace(target[-2], role=term.role)]
        alternative = conjunction = False
    return front + verb + rest + alternatives


def _is_participle(text: str) -> bool:
    if text in vocabulary.STATES:
        return False
    return (text.endswith("ed") and text not in vocabulary.NOT_ED and len(text) > 3) or text in vocabulary.PARTICIPLES


def _term(token: Token, role: str, plain: bool) -> Term | None:
    """The term of a token, or None for a word that may come and go."""
    text = token.text
    if token.kind != "word":
        return Term(text, token.kind, role, token.name)
    if text == _ASKED_BE:
        return None
    if text[0] == "?":
        return Term(text[1:], "question")
    if text in words.NEGATIONS:
        return Term(words.NEGATIONS[text], "negation")
    if text in words.MODALS:
        return Term(words.MODALS[text], "modal")
    if text in words.TENSES:
        return Term(words.TENSES[text], "tense")
    if text in words.ASKING:
        return Term(words.ASKING[text], "question")
    if text in words.LOGIC:
        return Term(words.LOGIC[text], "logic", role)
    if text in words.SAYING:
        return Term(words.ROLES[text], "word")
    if text in words.ROLES or text in words.FREE or text in words.PERSONAL or text in ("what", "which"):
        return None
    if token.exact:
        return Term(text, "identifier", role, token.name)
    if text in words.ADVERBS:
        return Term(base(text), "adverb")
    text = vocabulary.ORDINALS.get(text, text)
    if text in vocabulary.NUMBERS:
        return Term(vocabulary.NUMBERS[text], "number", role)
    return Term(inflection_stripped(text) if plain else base(text), "word", role, token.name)
