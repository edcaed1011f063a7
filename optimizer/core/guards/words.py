"""The grammar of the guards: small words and what each of them does in a prompt.

Rule: general English, no sentence of any test set; who wants to add a word must be able to say what it may replace.
Must not know: how the tables are applied.
"""


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Words that a rewording may add, drop or exchange. Negation, quantity and modality are never here.
FREE = word_set("""
a an the be am is are been being do does doing done have has having i you we me us it its itself this that these
those there they them their and but so then also just really actually basically simply very quite rather
somewhat able possible can could ever yes some any such own thus therefore hence however both finally oneself
yourself myself ourselves as while whereas
""")

# May stand in one text only: they say what is meant anyway. Their synonyms may too, so no verbs of doing here.
OPTIONAL = word_set("""
different specific particular certain actual given existing available plain current now currently exact respective
become thing
""")

# Too weighty to be said once less, even where they are repeated.
QUANTITIES = word_set("""
only all every each first last next most least more less few fewer min max over under same other another both
""")

# Said instead of whoever asks or is asked. The subject forms may mean anybody: "what happens when you / we / I wait".
ANYBODY = {"i": "first", "we": "first", "you": "second"}
PERSONAL = ANYBODY | dict.fromkeys(word_set("me my mine us our myself"), "first!") | {
    "your": "second!", "yours": "second!", "yourself": "second!",
}  # fmt: skip

# Preposition -> role of the words it governs.
ROLES = {
    "from": "from", "to": "to", "into": "to", "onto": "to", "toward": "to", "towards": "to", "than": "than",
    "before": "before", "after": "after", "instead": "instead", "until": "until", "till": "until", "since": "since",
    "against": "against", "except": "except", "between": "between", "among": "between", "amongst": "between",
    "by": "by", "using": "by", "via": "by", "through": "by", "with": "with", "for": "for", "of": "of", "in": "in",
    "on": "in", "at": "in", "within": "in", "inside": "in", "upon": "in", "about": "about", "regarding": "about",
    "concerning": "about", "like": "like", "during": "during", "under": "under", "beneath": "under", "over": "over",
    "beyond": "over", "above": "above", "below": "below", "without": "without", "per": "per", "across": "across",
    "behind": "behind", "near": "near",
}  # fmt: skip
# Roles that turn the meaning round when one takes the place of another.
STRONG = word_set("""
from to than before after instead until since against except by for with about without over under above below
""")

# Prepositions that carry meaning of their own: they count as words too.
SAYING = word_set("""
without except until since against over under above below before after instead than between behind like
""")

NEGATIONS = {
    "not": "not", "no": "not", "none": "not", "nor": "nor", "neither": "nor", "never": "never", "nobody": "nobody",
    "noone": "nobody", "hardly": "hardly", "barely": "hardly", "scarcely": "hardly",
}  # fmt: skip
MODALS = {
    "must": "must", "shall": "must", "need": "must", "should": "should", "ought": "should", "may": "may",
    "might": "may", "would": "would",
}  # fmt: skip
TENSES = {"was": "past", "were": "past", "did": "past", "had": "past", "will": "future"}
# A bare "how" asks for a degree ("how safe is it"); how something is done is recognised by its opening.
ASKING = {"why": "why", "who": "who", "whom": "who", "whose": "whose", "where": "where", "how": "degree"}
LOGIC = {"or": "or", "if": "if", "when": "if", "whenever": "if", "once": "if", "unless": "unless"}

DEGREES = word_set("""
many much long old far big often safe good true close fast cold tall high deep likely hard difficult easy large
expensive effective accurate important bad useful different hot small short young soon strong reliable secure
common
""")

# A sentence that begins so is a yes/no question of this sort.
YES_NO = dict.fromkeys(word_set("is are am do does has have was were did had will"), "yes/no") | {
    "can": "can", "could": "can", "should": "should", "would": "would", "may": "may", "must": "must",
}  # fmt: skip

# Where a sentence puts them is free.
ADVERBS = word_set("by-default today yesterday tomorrow tonight now currently again already anymore always")

# "Who" asks after these; after other words it only joins: "users who have logged in".
ASKED_FOR = word_set("""
explain know tell describe ask determine identify decide understand see show say state about of on me us and or to
""")
# "One" is no number before the first or after the second of these.
GENERIC_ONE = word_set("can could should must might would may needs of who that")
POINTING = word_set(
    "does do can should would could must will how why this that which the each no any some another every"
)
# Capitals that are not the pronouns they look like.
ACRONYMS = {"IT": "it-technology", "US": "usa", "WHO": "who-organisation"}

# Where words themselves are the topic, or are set against each other, no word stands for another.
WEIGHED = word_set(
    "between compare comparison vs versus difference differ differences synonym definition define word words"
)

# Nouns that only say what the neighbouring name is: "the develop branch" = "branch develop".
KIND_NOUNS = word_set("""
branch file column table function method class parameter argument flag option port line commit test library
module package variable directory field version
""")

# Where a clause begins, where its verb may be passive, and where a preposition's reach ends.
CLAUSES = word_set("that which if when whenever once unless because while whereas but where who")
BE = word_set("is are was were be been being am get gets got")
AUXILIARIES = word_set("can could will would should must may might do does did have has had")
PAIRING = word_set("between both compare")  # "between A and B" = "between B and A"

CONTRACTIONS = {
    "can't": "can not", "won't": "will not", "shan't": "shall not", "let's": "let us", "cannot": "can not",
    "ain't": "is not", "dont": "do not", "doesnt": "does not", "didnt": "did not", "isnt": "is not",
    "arent": "are not", "wasnt": "was not", "werent": "were not", "cant": "can not", "havent": "have not",
    "hasnt": "has not", "hadnt": "had not", "shouldnt": "should not", "wouldnt": "would not",
    "couldnt": "could not", "im": "i am", "ive": "i have", "youre": "you are", "whats": "what is",
    "thats": "that is", "hows": "how is", "whos": "who is", "wheres": "where is", "y'all": "you",
    "gonna": "going to", "wanna": "want to", "gotta": "have to", "etc": "",
}  # fmt: skip
ENDINGS = {"'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}
# After these 's is a verb.
IS_AFTER = word_set("what that it there here who how where when why he she which this")
