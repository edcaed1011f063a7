"""Phrases: the fixed ways of asking, the courtesy around a question, and what they come down to.

Rule: a phrase may only be replaced by one that could stand in its place in any prompt.
Must not know: how the tables are applied.
"""

from optimizer.core.guards.words import word_set

Table = dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]]


def _table(text: str) -> Table:
    """Lines "a b | c d = x y" -> first word -> [(phrase, replacement)], longest phrase first."""
    table: Table = {}
    for line in text.strip().splitlines():
        left, _, right = line.partition("=")
        for phrase in left.split("|"):
            words = tuple(phrase.split())
            table.setdefault(words[0], []).append((words, tuple(right.split())))
    for options in table.values():
        options.sort(key=lambda option: -len(option[0]))
    return table


def _phrases(text: str, key: int) -> dict[str, list[tuple[str, ...]]]:
    """ "a b; a; c" -> {a: [(a, b), (a,)], c: [(c,)]}: by the word at `key`, longest phrase first."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for words in sorted((tuple(phrase.split()) for phrase in text.split(";")), key=len, reverse=True):
        table.setdefault(words[key], []).append(words)
    return table


# Anywhere in a prompt.
PHRASES = _table("""
all but = all except
everything but = everything except
anything but = anything except
nothing but = only
make money | making money | make some money | earn some money = earn money
get rich = become rich
should i | should you | should we | should one | do i need to | do you need to | do we need to = can
would happen | will happen = happen
what kind of | what type of | what sort of | which kind of | which type of = ?what
per day | in a day = daily
every day = daily
a day = daily
someone else's = other
all of the | all of = all
video game | video games = videogame
prior to = before
in order to | so as to | is able to | are able to | be able to | has the ability to | have the ability to = can
is capable of | are capable of | it is possible to | it is feasible to | one can | you can | users can = can
is used to | are used to | be used to | is employed to | are employed to | be employed to | is utilized to = can
be utilized to | is designed to | are designed to | is intended to | are intended to | serves to | serve to = can
is meant to | are meant to | is used for | are used for | can be used for | is utilized for | is employed for = can
used to = can
dated = from
instead of | rather than | in place of | as opposed to = instead
over the last | over the past | during the last | during the past | in the last | in the past = in last
within the last | within the past = in last
how to = ?how
as well as | along with | together with | in addition to = and
by default = by-default
with the help of | by means of | by using | by utilizing | by employing | by utilising | using | utilizing = using
utilising | employing | through the use of | by making use of = using
according to | in accordance with | based on = by
make use of | makes use of = use
take a look at | have a look at = look
a lot of | lots of | plenty of | a number of = many
have to | has to | need to | needs to | required to | it is necessary to = must
going to | about to = will
supposed to = should
due to | because of | owing to | as a result of = because
regular expression | regular expressions | regexes = regex
two times = 2 times
three times = 3 times
united states | united states of america = usa
united kingdom | great britain = uk
artificial intelligence = ai
machine learning = ml
prime minister = pm
operating system = os
world war two | world war 2 | world war ii | ww2 = wwii
get rid of = delete
carry out | carries out | carried out = perform
work out | figure out = determine
set up = setup
log in | log on | sign in | logged in | signed in = login
log out | sign out = logout
no longer = not anymore
at least = min
at most = max
for example | for instance | such as = like
more than | greater than = over
less than = under
depends on | depend on | is contingent on = depend
consist of | consists of = contain
get started with | get started = begin
is equal to | equals = =
right now | at the moment | at present | these days | nowadays = now
""")

# Only at the beginning of a sentence. "?x" is a question term.
OPENINGS = _table("""
is there any difference | is there a difference | are there any differences | are there differences = ?what difference
what are some best ways to | what are the best methods to = ?how
what is the best method to | what are the best ways of = ?how
what are some good ways of | what are some ways i can | how best to | how best can i | how can i best = ?how
what are some tips to | what are the best tips to | what are some tips for | what are the best tips for = ?how tips
what should i | what should you | what should we | what should one | what do i need to = ?what
what happens if | what happens when = ?what happen if
what would happen if | what will happen if | what would happen when = ?what happen if
what do you think about | what do you think of | what are your views on | what are your thoughts on = ?what opinion
what is your opinion on | what is your opinion about | what is your view on | what are your views about = ?what opinion
what is it like to | how is it like | how is it like to = ?what like
what does it feel like to | how does it feel to | what is it like = ?what like
why is it so | why is it | why are there so = ?why
how is | how are = ?how ?be
how | how do i | how do you | how do we | how do one | how does one | how do people | how to | how can i = ?how
how can you | how can we | how can one | how could i | how could you | how could we | how should i = ?how
how should you | how should we | how should one | how would i | how would you | how would we | how may i = ?how
how might i | how might one | how might we | how can a person | how does a person | how do they = ?how
how can someone | how does someone | how do | how does | how can | how could = ?how
what could i do to | what could we do to | what can i do to = ?how
what can you do to | what can we do to | what can one do to | what should i do to = ?how
what do i need to do to | what do i have to do to | what is the best way of = ?how
what is the best way to | what are the best ways to | which is the best way to | what are some good ways to = ?how
what is the way to | what is a way to | what are the ways to | what are ways to | what are some ways to = ?how
what are the steps to | what is the procedure to = ?how
what is the process to | what is the method to = ?how
what is the right way to | what is the correct way to | what is a good way to | what are good ways to = ?how
show me how to | tell me how to | teach me how to | explain how to | describe how to | explain to me how to = ?how
tell me how i can | show me how i can | is there a way to | is there any way to | in what way = ?how
in what way can i | explain how | describe how | tell me how | explain to me how | show me how = ?how
how did = ?how past
how will = ?how future
how would = ?how would
explain why | tell me why | describe why | what makes | how come | for what reason | for what reasons = ?why
what is the reason for | what is the reason that | what is the reason why | what are the reasons for = ?why
what are the reasons that | what are the reasons why | what is the reason behind | why is it that = ?why
what is meant by | what is the meaning of | what do you mean by | what do we mean by = ?what
what would be | what could be | what can be | what might be | which would be | which could be = ?what
what is the name of | name the | tell me what is | what are some of | what is | what are | what | which = ?what
tell me what | tell me which | which of the following | which is | which are | tell me the = ?what
give me a list of | make a list of | provide a list of | show me a list of | give a list of | list out = ?what
give me the | show me the | show me | show us | list the | list | print the | print | show the | show = ?what
display the | display | find the | find | get the | name = ?what
what was | what were | which was | which were | what did | which did = ?what past
what will | which will = ?what future
do you think that | do you think | do we think | would you say that = ?yes/no
who | tell me who = ?who
when is | when are | when does | when do | when can | when should | when = ?when
when was | when did | when were = ?when past ?be
when will = ?when future
where is | where are | where can i | where can you | where can we | where do i | where do you | where = ?where
is it possible to | is it possible for | is it feasible to | can i | can you | can we | can one | can someone = ?can
is it okay to | is it ok to | is it safe to | can i safely | can you safely | can we safely = ?can safe
should i | should you | should we | should one | is it advisable to | ought i to = ?should
give me a summary of | give a summary of | write a summary of | provide a summary of = summarize
give me the summary of | create a summary of | produce a summary of = summarize
give me an explanation of | give an explanation of | provide an explanation of | give me a description of = explain
give a description of | tell me about = explain
make a plan for | make a plan to | create a plan for | create a plan to | write a plan for = plan
give me all | show me all | list all | find all | show all | print all = ?what all
give me a | give me an | write me | write a | write an | write | give me = write
yes = yes
""")

# A prompt's courtesy, cut at its beginning and its end; never in the middle.
COURTESY_BEFORE = _phrases(
    """
please; kindly; hi; hello; hey; hi there; hello there; hey there; good morning; good afternoon; good evening; dear
assistant; could you please; can you please; would you please; will you please; could you kindly; could you; can
you; would you; will you; could you help me with this; can you help me with this; could you please help me with
this; please help me with this; can you help me; could you help me; help me; i would like you to; i want you to; i
need you to; i would like to know; i want to know; do you know; do you think you could; could you tell me; can you
tell me; please tell me; would you mind; i was wondering; i wonder; thanks; thank you; quick question; sorry; excuse
me; just; so; ok; okay; well
""",
    key=0,
)
COURTESY_AFTER = _phrases(
    """
please; thanks; thank you; thanks a lot; many thanks; thank you very much; thank you so much; thanks in advance;
cheers; thank you in advance; thanks so much; thx; ty; if you can; if you could; if possible; if you do not mind;
for me; thanks for your help; thank you for your help; i would appreciate it; much appreciated
""",
    key=-1,
)
# "Can you" before these asks what is possible, it does not ask for it.
ANYBODY_DOES = word_set("have be become ever still buy die live survive")
# A last "please" or "thanks" without a comma is courtesy too, except after these: "How do I say thanks?"
BARE = frozenset({"please", "thanks", "thank", "thx"})
TALKED_ABOUT = word_set("""
say saying says said word words mean means spell translate of or and between write use with than is for
""")
