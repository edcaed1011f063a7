"""Combined prompts and the verified split."""

from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.batching import combinable, combine, split


def test_every_question_is_asked_with_its_number():
    prompt = combine(["What is DNS?", "What is TLS?"])
    assert "2 questions" in prompt
    assert prompt.index("Question 1:\nWhat is DNS?") < prompt.index("Question 2:\nWhat is TLS?")


def test_a_well_formed_answer_is_split():
    assert split("<<1>>\nNames.\n<<2>>\nSecrets.\nMore.", 2) == ["Names.", "Secrets.\nMore."]


def test_a_missing_or_empty_part_is_asked_singly():
    assert split("<<1>>\nNames.", 2) == ["Names.", None]
    assert split("<<1>>\n\n<<2>>\nSecrets.", 2) == [None, "Secrets."]


def test_doubtful_markers_give_nothing_to_anybody():
    for answer in (
        "Names. Secrets.",
        "Sure!\n<<1>>\nNames.\n<<2>>\nSecrets.",
        "<<2>>\nSecrets.\n<<1>>\nNames.",
        "<<1>>\na\n<<1>>\nb",
        "<<1>>\na\n<<3>>\nb",
        "<<0>>\na",
    ):
        assert split(answer, 2) == [None, None]


def test_the_last_part_of_a_cut_answer_is_not_trusted():
    assert split("<<1>>\nNames.\n<<2>>\nSecr", 2, whole=False) == ["Names.", None]


def test_long_questions_and_markers_in_questions_are_not_combined():
    assert not combinable("x" * 601)
    assert not combinable("what does <<1>> mean?")
    assert not combinable("  ")


_TEXT = st.text(st.characters(blacklist_characters="<>", blacklist_categories=("Cs", "Cc")), min_size=1).filter(
    str.strip
)


@given(st.lists(_TEXT, min_size=1, max_size=5))
def test_what_is_written_with_markers_comes_apart_again(texts):
    answer = "\n".join(f"<<{n}>>\n{text}" for n, text in enumerate(texts, start=1))
    assert split(answer, len(texts)) == [text.strip() for text in texts]
