"""Wordy phrases and what they come to; articles that a model does not miss.

Rule: a phrase is replaced only by one that says the same and, by the given counter, costs fewer tokens. No rule
touches negation, obligation, figures or names. Text that someone else wrote (what is to be translated, summarised,
corrected) is payload: `payload_start` says where it begins, and nothing behind that is reworded.
Must not know: levels, regions, protected spans (it is given lines in which those are already masked).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Count = Callable[[str], int]

_START = "\ue8ff"  # a sentence lost its first words here: the next plain word becomes its beginning


@dataclass(frozen=True, slots=True)
class Phrase:
    """A wordy phrase; an empty replacement drops it."""

    anchor: str  # lower-case text without which the pattern cannot match: most lines are never searched
    pattern: re.Pattern[str]
    replacement: str


def _phrase(anchor: str, pattern: str, replacement: str = "") -> Phrase:
    start = "" if anchor.startswith(" ") else r"(?<![\w-])"
    return Phrase(anchor, re.compile(rf"{start}(?:{pattern})", re.IGNORECASE), replacement)


# In this order: long forms before the short ones that they contain. Most are the classics of plain-English guides
# (plainlanguage.gov, "Use simple words and phrases"); the openers are what people write to assistants.
_PHRASES = (
    # whole sentences of courtesy
    _phrase("h", r"^(?:hi|hello|hey)(?: there| all| everyone| team)?[!,.]+(?: +|$)"),
    _phrase("good", r"^good (?:morning|afternoon|evening|day)(?: all| everyone| team)?[!,.]+(?: +|$)"),
    _phrase("i hope", r"(?:^|(?<=[.!?] ))I hope (?:that )?"
            r"(?:you(?: are|['’]re)|this (?:message|e?-?mail) finds you|all is) "
            r"(?:all )?(?:doing )?(?:well|fine|good|great)(?: today)?[.!](?: |$)"),
    _phrase("help me", r"(?:^|(?<=[.!?] ))I (?:was|am) wondering "
            r"(?:if|whether) you (?:could|can|would be able to) (?:please )?help me "
            r"(?:out )?with (?:something|a (?:small |quick )?(?:question|problem|task))[.!?](?: |$)"),
    _phrase("thank", r"(?:^|(?<=[.!?] ))(?:many thanks|thank you|thanks)(?: (?:so|very) much| a lot)?(?: in advance)?"
            r"(?: for (?:your|any|the) (?:help|time|support|assistance|attention)(?: and \w+)?)?"
            r"(?: in advance)?[.!]+(?: |$)"),
    _phrase("appreciated", r"(?:^|(?<=[.!?] ))(?:any|your) (?:help|assistance|support)(?: with this)? (?:is|would be) "
            r"(?:very |much |greatly |highly )*appreciated[.!](?: |$)"),
    # openers of a request
    _phrase("wondering", r"I (?:was|am) (?:just )?wondering (?:if|whether) you (?:could|can|would|might) "
            r"(?:please |kindly |possibly )?"),
    _phrase("what i", r"what I (?:want|need|would like) you to do is (?:the following: |to )?"),
    _phrase("like", r"I(?: would|['’]d) (?:really )?like "
            r"(?:to (?:request|ask) that you |to ask you to |for you to |you to )(?:please )?"),
    _phrase("opinion", r"I(?: would|['’]d) like to (?:get|have|hear) your (?:opinion|thoughts|advice) on ",
            "Give your opinion on "),
    _phrase("you to", r"I (?:want|need) you to (?:please )?"),
    _phrase("if you", r"(?:I(?: would|['’]d) (?:really |greatly |very much )?appreciate it if"
            r"|I(?: would|['’]d) be (?:very )?grateful if"
            r"|it would be (?:great|nice|helpful|wonderful) if) you (?:could|would|can) (?:please )?"),
    _phrase("so kind", r"(?:would|could) you (?:please )?be so kind as to "),
    _phrase("you", r"(?:could|can|would|will) you (?:please|kindly|possibly) "),
    _phrase("please", r"please (?:could|can|would|will) you (?:kindly )?"),
    _phrase("be advised", r"please be advised that "),
    _phrase("note", r"it (?:is|['’]s) (?:also )?(?:important|worth|essential) (?:to note|noting) that "),
    _phrase("note", r"(?:please )?(?:note|keep in mind|bear in mind|be aware) that "),
    _phrase("attention", r"it has come to (?:my|our) attention that "),
    _phrase("background", r"to give you (?:some |a bit of |a little )?(?:more )?(?:background|context)"
            r"(?: information)?, ", "Background: "),
    _phrase("step", r"please take a deep breath and "),
    _phrase("go ahead", r"go ahead and "),
    # wordy for short
    _phrase("make", r"make (?:absolutely |very )?sure (?:to |that you |you )"),
    _phrase("sure that", r"(?:make|making) (?:absolutely |very )?sure that ", "ensure "),
    _phrase("ensure that", r"ensure that ", "ensure "),
    _phrase("playing", r"in this conversation,? you will be playing the role of ", "you are "),
    _phrase("playing", r"you will be playing the role of ", "you are "),
    _phrase("whose job", r"whose job it is to ", "whose job is to "),
    _phrase("in addition", r"in addition to (?:that|this), ", "also, "),
    _phrase("first of all", r"first of all,? ", "first "),
    _phrase("first and", r"first and foremost,? ", "first "),
    _phrase("in order to", r"in order to ", "to "),
    _phrase("so as to", r"so as to ", "to "),
    _phrase("the fact that", r"(?:due to|owing to|because of|on account of|in view of|in light of) the fact that ",
            "because "),
    _phrase("for the reason", r"for the (?:simple )?reason that ", "because "),
    _phrase("the fact that", r"(?:despite|in spite of) the fact that ", "although "),
    _phrase("in the", r"in the (?:case|event) that ", "if "),
    _phrase("point in time", r"at (?:this|the present) point in time", "now"),
    _phrase("at the", r"at the (?:present|current) time", "now"),
    _phrase("in the near", r"in the near future", "soon"),
    _phrase("in the course", r"in the course of ", "during "),
    _phrase("for the purpose", r"for the purposes? of ", "for "),
    _phrase("at all times", r"at all times", "always"),
    _phrase("regard", r"(?:with|in) regards? to ", "about "),
    _phrase("respect to", r"with respect to ", "about "),
    _phrase("relation to", r"in relation to ", "about "),
    _phrase("exception of", r"with the exception of ", "except "),
    _phrase("number of", r"a (?:large|great|high) number of ", "many "),
    _phrase("deal of", r"a (?:great|good) deal of ", "much "),
    _phrase("variety of", r"a (?:wide |great |large |broad )?(?:variety|range) of ", "various "),
    _phrase("majority of", r"the (?:vast )?majority of ", "most "),
    _phrase("by means of", r"by means of ", "by "),
    _phrase("spite of", r"in spite of ", "despite "),
    _phrase("each and every", r"each and every ", "every "),
    _phrase("any and all", r"any and all ", "all "),
    _phrase("take into", r"take into (?:consideration|account) ", "consider "),
    _phrase("ability to", r"(?:has|have) the ability to ", "can "),
    _phrase("able to", r"(?:is|are) able to ", "can "),
    _phrase("has got ", r"has got ", "has "),
    _phrase("with the name", r"with the name (?!of\b)", "named "),
    _phrase(" in length", r"(?:(?<=words)|(?<=lines)|(?<=pages)|(?<=sentences)|(?<=characters)) in length"),
    _phrase(" whatsoever", r" whatsoever"),
    _phrase("inside of ", r"inside of ", "inside "),
    _phrase("all of the ", r"all of the ", "all "),
    _phrase("both of the ", r"both of the ", "both "),
    _phrase("look at", r"(?:take|have) a (?:close |quick )?look at ", "look at "),
    _phrase("a total of", r"a total of (?=\d)"),
    _phrase("tilise", r"utilise ", "use "),
    _phrase("tilize", r"utilize ", "use "),
    _phrase("or equal", r"(?:is )?greater than or equal to ", ">= "),
    _phrase("or equal", r"(?:is )?less than or equal to ", "<= "),
    # fillers
    _phrase("basically", r"basically,? "),
    _phrase(",", r"(?<![^\n.!? ])(?:essentially|obviously|needless to say|to be honest"
            r"|as you (?:may |probably )?know), "),
    _phrase(" please", r",? please(?=[.!?])"),
    _phrase("please", r"please "),
    _phrase("kindly", r"kindly (?=[a-z])"),
)  # fmt: skip

_NOT = re.compile(r" *(?:not|never)\b", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(?:^|[.!?:] +|^\s*(?:[-*+]|\d+[.)])\s+)$")
_ASKED = "\ue8fe"  # "could you please" stood here: the sentence no longer asks
_ASKED_TO = re.compile(_ASKED + r"([^.!?\n]*)\?")
_PLAIN_AFTER = re.compile(_START + r" *([a-z])(?=[a-z]*(?:[ ,.:;!?]|$))")


def phrases_in(text: str, among: Sequence[Phrase] | None = None) -> Sequence[Phrase]:
    """The phrases that may occur in a text: a quick look that spares most lines the masking and the search."""
    lower = text.lower()
    if among is None:
        return [phrase for phrase in _PHRASES if phrase.anchor in lower]
    return [phrase for phrase in among if phrase.anchor in lower and phrase.pattern.search(text)]


def reworded(line: str, phrases: Sequence[Phrase], articles: bool, count: Count) -> str:
    """The line, sentence by sentence, with wordy phrases shortened where that saves tokens, and without its
    articles if `articles`. A sentence that speaks about words ("the phrase in order to") stays as it is.
    """
    indent = line[: len(line) - len(line.lstrip())]
    sentences = _BETWEEN_SENTENCES.split(line[len(indent) :])
    if not phrases and not articles:
        return line
    for i, sentence in enumerate(sentences):
        if not _ABOUT_WORDS.search(sentence):
            shorter = _shortened(sentence, phrases, count)
            sentences[i] = _without_articles(shorter) if articles else shorter
    return indent + " ".join(sentence for sentence in sentences if sentence)


_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) +(?=\S)")
_ABOUT_WORDS = re.compile(
    r"\b(?:words?|phrases?|terms?|titles?|titled|letters?|articles?|begins? with|starts? with|ends? with|says?|said|"
    r"called|spell\w*|pronounce\w*|rhymes?|synonyms?|quotes?|quoted|wording)\b",
    re.IGNORECASE,
)


def _shortened(sentence: str, phrases: Sequence[Phrase], count: Count) -> str:
    lower = sentence.lower()
    shorter = sentence
    for phrase in phrases:
        if phrase.anchor in lower:
            shorter = phrase.pattern.sub(lambda found, p=phrase: _replaced(found, p, count), shorter)  # type: ignore[misc]
    if shorter == sentence:
        return sentence
    shorter = _ASKED_TO.sub(r"\1.", shorter).replace(_ASKED, "")
    return _PLAIN_AFTER.sub(lambda found: found[1].upper(), shorter).replace(_START, "").rstrip()


def _replaced(found: re.Match[str], phrase: Phrase, count: Count) -> str:
    new = phrase.replacement
    before = found.string[max(0, found.start() - 40) : found.start()]
    begins = bool(_SENTENCE_START.search(before.replace(_START, "").replace(_ASKED, "")))
    if not new:
        if _NOT.match(found.string, found.end()):
            return found[0]  # "please not ..." would become an order of the opposite's form
        asked = _ASKED if re.search(r"\b(?:could|can|would|will) you\b", found[0], re.IGNORECASE) else ""
        return asked + (_START if begins else "")
    if count(new) >= count(found[0]):
        return found[0]
    return new[0].upper() + new[1:] if begins or found[0][0].isupper() else new[0].lower() + new[1:]


# --- articles -------------------------------------------------------------------------------------

# Words before which an article carries meaning: "a few" is not "few", "the only" not "only", "3 times a day".
_ARTICLE_MATTERS = (
    "few|little|lot|bit|couple|dozen|hundred|thousand|million|billion|number|same|other|others|more|most|least|less|"
    "single|while|one|ones|two|latter|former|only|next|first|last|best|worst|rest|second|minute|hour|day|week|month|"
    "year|time|priori|posteriori|la|carte|and|or|is|are|was|to|in|of|not|no"
)
_ARTICLE = re.compile(
    rf"(?<![\w'’\-.,+*/=])(?<!\b[Tt]he )(?<!\b[Aa] )(?:([Tt]he|[Aa]n?) +)"
    rf"(?!(?:{_ARTICLE_MATTERS})\b)(?=[a-z]{{3,}}(?:[ ,.;:!?)]|$))"
)


def _without_articles(line: str) -> str:
    """Without the articles before plain lower-case words."""

    def dropped(found: re.Match[str]) -> str:
        return _START if found[1][0].isupper() else ""

    line = _ARTICLE.sub(dropped, line)
    return _PLAIN_AFTER.sub(lambda found: found[1].upper(), line).replace(_START, "")


# --- payload ----------------------------------------------------------------------------------------

_WORK_ON_TEXT = (
    r"translat\w+|rewrite|rewriting|rephrase|reword|paraphrase|proofread\w*|correct|edit|summari[sz]e|summary|shorten|"
    r"polish|improve|classify|extract|grammar|spelling|sentiment|tone|quote|repeat|copy|count|transcribe|continue|"
    r"complete|respond to|reply to|answer|read|review|analy[sz]e|explain|format|convert"
)
_TEXT_WORK = re.compile(rf"\b(?:{_WORK_ON_TEXT})\b", re.IGNORECASE)
_DOCUMENT = re.compile(r"(?:---\n|#{1,6} )")


def payload_start(text: str) -> int:
    """The offset behind which the text is somebody's material and not the request; len(text) when there is none.

    A document that opens with a heading or front matter is an instruction throughout. Otherwise the line that asks
    for work on a text ends the request: behind it, or behind its colon, comes the material. Where the asking comes
    in a later paragraph, or points back, all of it may be material: 0.
    """
    if _DOCUMENT.match(text):
        return len(text)
    ask = _TEXT_WORK.search(text)
    if ask is None:
        return len(text)
    first_end = text.find("\n\n")
    if 0 <= first_end < ask.start() or _POINTS_BACK.search(text):
        return 0
    line_end = text.find("\n", ask.start())
    line_end = len(text) if line_end < 0 else line_end
    colon = re.match(r"[^.!?\n]*?: +(?=[^\s\"“'`])", text[ask.start() : line_end])
    if colon:  # in the sentence that asks
        return ask.start() + colon.end()
    return line_end


_POINTS_BACK = re.compile(r"\b(?:above|preceding|foregoing)\b", re.IGNORECASE)
