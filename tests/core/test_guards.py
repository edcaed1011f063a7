"""The guards: what similar prompts must share before one's answer is given to the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.guards import read, verdict
from optimizer.core.guards.forms import base
from optimizer.core.request import CacheMode

SAME = [
    ("Explain line 7 of main.py.", "  explain  line 7 of main.py\n"),
    ("Explain line 7 of main.py.", "Could you please explain line 7 of main.py? Thanks a lot!"),
    ("Don't restart the worker.", "Do not restart the worker."),
    ("What's the maximum?", "what is the maximum"),
    ("It’s called “blue”, isn’t it?", "It's called \"blue\", isn't it?"),
    ("How do I say thanks in German?", "how do I say thanks in German"),
]
REWORDED = [
    ("How do I sort a list?", "How can you sort a list?"),
    ("How do I sort a list?", "What is the way to sort a list?"),
    ("How do I sort a list?", "Show me how to sort lists."),
    ("Explain how DNS works.", "How does DNS work?"),
    ("Why is the build slow?", "What makes the build slow?"),
    ("What does line 9 of parser.py do?", "Explain line 9 of parser.py."),
    ("Convert the report to PDF.", "Transform this report into PDF."),
    ("Does the server support HTTP/2?", "Is HTTP/2 supported by the server?"),
    ("The parser reads the file.", "The file is read by the parser."),
    ("In Rust, how do I read a file?", "How do I read a file in Rust?"),
    ("If the disk is full, what happens?", "What happens if the disk is full?"),
    ("Should I use Postgres or MySQL?", "Should I use MySQL or Postgres?"),
    ("What is the difference between TCP and UDP?", "What is the difference between UDP and TCP?"),
    ("Merge the feature branch into main.", "Merge branch feature into main."),
    ("Explain scheduler.py line 12.", "Explain line 12 of scheduler.py."),
    ("Delete 3 files after 10 seconds.", "Remove three files after 10s."),
    ("Wait 1,000 ms.", "Wait 1000 milliseconds."),
    ("Summarise the report from 2031-05-06.", "Give me a summary of the report dated 2031-05-06."),
    ("Compare low risk and high risk funds.", "Compare low and high risk funds."),
    ("What happens when you delete a branch?", "What happens if I delete a branch?"),
    ("Congestion control?", "What is congestion control?"),
    ("Install version 2.1 with the help of pip.", "Install v2.1 using pip."),
]
DIFFERENT = [
    ("number", "Expose port 8080.", "Expose port 8081."),
    ("number", "Retry twice.", "Retry three times."),
    ("number", "Use Django 4.2.", "Use Django 4.20."),
    ("number", "The value is -5.", "The value is 5."),
    ("number", "Wait 5 ms.", "Wait 5 s."),
    ("number", "It draws 5 mW.", "It draws 5 MW."),
    ("number", "It costs $20.", "It costs €20."),
    ("identifier", "Run test_login.", "Run test_logout."),
    ("identifier", "Open src/app.py.", "Open src/apps.py."),
    ("identifier", "Add the --force flag.", "Add the --quiet flag."),
    ("identifier", "Open http://a.example/x", "Open http://a.example/y"),
    ("identifier", "What is MAX_SIZE?", "What is max_size?"),
    ("literal", "Explain `a + b`.", "Explain `a - b`."),
    ("literal", 'Translate "it is late".', 'Translate "it was late".'),
    ("literal", "Review:\n```\nif x:\n    y()\n```", "Review:\n```\nif x:\n  y()\n```"),
    ("negation", "Send the mail.", "Do not send the mail."),
    ("negation", "Which users have logged in?", "Which users have not logged in?"),
    ("negation", "List what is safe but not free.", "List what is free but not safe."),
    ("modal", "Users must log in.", "Users may log in."),
    ("tense", "Who is the president?", "Who was the president?"),
    ("question", "How does it fail?", "Why does it fail?"),
    ("question", "When does it start?", "Where does it start?"),
    ("question", "Does it enforce keys?", "How do I enforce keys?"),
    ("logic", "Tabs and spaces?", "Tabs or spaces?"),
    ("symbol", "What is 3 + 4?", "What is 3 * 4?"),
    ("order", "Convert Celsius to Fahrenheit.", "Convert Fahrenheit to Celsius."),
    ("order", "Upgrade from 4.2 to 5.0.", "Upgrade from 5.0 to 4.2."),
    ("order", "Is Linux faster than Windows?", "Is Windows faster than Linux?"),
    ("order", "Read the log before the mail.", "Read the mail before the log."),
    ("order", "The dog bit the man.", "The man bit the dog."),
    ("order", "The parser is used by the server.", "The server is used by the parser."),
    ("content", "Use pandas.", "Use polars."),
    ("content", "Encrypt the file.", "Decrypt the file."),
    ("content", "Is the tool safe?", "Is the tool unsafe?"),
    ("content", "Show the first lines.", "Show the last lines."),
    ("content", "Show only the errors.", "Show the errors."),
    ("content", "Delete all entries.", "Delete some entries."),
    ("content", "Add an IT school.", "Add a school."),
    ("person", "What is your name?", "What is my name?"),
    ("person", "What can you do?", "What can I do?"),
    ("empty", "Who are you?", "Who am I?"),
    ("empty", "What is it?", "What are they?"),
    ("empty", "?!", "..."),
]


@pytest.mark.parametrize(("cached", "asked"), SAME)
def test_typing_and_courtesy_do_not_matter(cached, asked):
    assert verdict(cached, asked).guard == "same"


@pytest.mark.parametrize(("cached", "asked"), REWORDED)
def test_the_same_question_in_other_words_is_served(cached, asked):
    found = verdict(cached, asked)
    assert found.allowed, found


@pytest.mark.parametrize(("guard", "cached", "asked"), DIFFERENT)
def test_another_question_in_similar_words_is_refused_by_its_guard(guard, cached, asked):
    found = verdict(cached, asked)
    assert not found.allowed
    assert found.guard == guard, found


@pytest.mark.parametrize(("guard", "cached", "asked"), DIFFERENT)
def test_the_verdict_does_not_depend_on_who_asked_first(guard, cached, asked):
    assert not verdict(asked, cached).allowed


def test_what_is_said_about_politeness_is_no_courtesy():
    assert not verdict("How do I say please in German?", "How do I say thanks in German?").allowed


def test_a_long_prompt_may_not_change_its_order():
    parts = [
        f"Step {name} comes with its own careful explanation." for name in ("alpha", "beta", "gamma", "delta", "kappa")
    ]
    assert verdict(" ".join(parts), " ".join(parts)).allowed
    assert not verdict(" ".join(parts * 2), " ".join([*parts[3:], *parts[:3]] * 2)).allowed


class TestLight:
    def test_allows_other_words(self):
        pair = ("Explain the retry logic.", "Explain the retry mechanism.")
        assert verdict(*pair, CacheMode.LIGHT).guard == "light"
        assert not verdict(*pair, CacheMode.STRICT).allowed

    @pytest.mark.parametrize(
        ("guard", "cached", "asked"),
        [
            ("number", "Explain rule 7.", "Explain rule 8."),
            ("antonym", "Enable the retry logic.", "Disable the retry logic."),
            ("antonym", "Install the retry logic.", "Uninstall the retry logic."),
            ("name", "Visit the old town of Lisbon.", "Visit the old town of Vienna."),
            ("quantity", "Explain the first retry.", "Explain the retry logic."),
            ("order", "Move it from red to green.", "Move it from green to red."),
            ("question", "Why does it retry?", "How does it retry?"),
        ],
    )
    def test_still_refuses(self, guard, cached, asked):
        assert verdict(cached, asked, CacheMode.LIGHT).guard == guard


@pytest.mark.parametrize("mode", [CacheMode.OFF, CacheMode.EXACT])
def test_modes_without_similarity_allow_nothing(mode):
    assert verdict("same", "same", mode).guard == "mode"


@pytest.mark.parametrize(
    "forms",
    [
        "hope hopes hoped hoping", "hop hops hopped hopping", "create creates created creating", "use uses used using",
        "index indexes indexed indexing", "try tries tried trying", "run runs ran running", "match matched matching",
        "cache caches cached caching", "process processes processed processing", "retrieve fetched getting obtains",
    ],
)  # fmt: skip
def test_the_forms_of_a_word_share_one_key(forms):
    assert len(set(map(base, forms.split()))) == 1


@pytest.mark.parametrize(
    "words",
    [
        "hope hop",
        "plane plan",
        "unsafe safe",
        "string st",
        "build create",
        "sort kind",
        "less least",
        "new news",
        "bus bu",
    ],
)
def test_different_words_keep_different_keys(words):
    a, b = words.split()
    assert base(a) != base(b)


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_equals_itself(text):
    assert read(text) == read(text)
    if read(text).skeleton:
        assert verdict(text, text).allowed


@given(st.text(max_size=80), st.text(max_size=80))
def test_the_verdict_is_symmetric(a, b):
    assert verdict(a, b).allowed == verdict(b, a).allowed


WORDS = st.sampled_from(
    ["port", "80", "not", "from", "to", "Linux", "`x`", "open", "the", "why", "5", "ms", "or", ".", ","]
)


@given(st.lists(WORDS, max_size=14), st.sampled_from([CacheMode.STRICT, CacheMode.LIGHT]))
def test_changing_a_number_is_never_served(words, mode):
    assert not verdict(" ".join([*words, "7"]), " ".join([*words, "8"]), mode).allowed


@pytest.mark.parametrize(
    ("cached", "asked"),
    [
        ("Add users to groups.", "Add groups to users."),
        ("Delete everything but the logs.", "Delete everything and the logs."),
        ("Is the server using the proxy?", "Is the proxy using the server?"),
        ("Create a table for orders in the users database.", "Create a table for users in the orders database."),
        ("Compare a method and a function.", "Compare a technique and a function."),
        ("What is a method?", "What is a technique?"),
        ("Open the door for Ann.", "Open the door with Ann."),
        ("Which file did you delete?", "Which file did I delete?"),
        ("Explain C++.", "Explain C#."),
        ("Who manages Anna?", "Who does Anna manage?"),
        ("How do I log in?", "How do I log out?"),
        ("How good is this salary?", "How bad is this salary?"),
        ("How many cats sleep?", "How long do cats sleep?"),
        ("Count the functions mapping A into B.", "Count the functions mapping B into A."),
    ],
)
def test_small_words_that_turn_the_meaning_are_noticed(cached, asked):
    assert not verdict(cached, asked).allowed
    assert not verdict(asked, cached).allowed
