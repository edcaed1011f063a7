"""Combined prompts: several short questions in one prompt, and the verified split of the answer.

Rule: a part is only ever given to its question when the answer's markers prove which part it is; anything missing,
doubled, empty or out of order counts as not answered, and that question is then asked singly.
Must not know: futures, windows, or who asked.
"""

import re
from collections.abc import Sequence

MOST_CHARACTERS = 600  # of one question: longer ones gain nothing from sharing a prompt

_INSTRUCTION = (
    "Answer each of the {count} questions below, in order and independently of the others. Begin the answer to "
    "question N with a line that holds only <<N>> and write nothing before <<1>>.\n\n{questions}"
)
_MARKER = re.compile(r"^[ \t]*<<(\d{1,3})>>[ \t]*$", re.MULTILINE)


def combinable(question: str) -> bool:
    """Whether a question is short and cannot be confused with the markers."""
    return 0 < len(question.strip()) <= MOST_CHARACTERS and "<<" not in question


def combine(questions: Sequence[str]) -> str:
    """One prompt that asks them all."""
    listed = "\n\n".join(f"Question {number}:\n{text.strip()}" for number, text in enumerate(questions, start=1))
    return _INSTRUCTION.format(count=len(questions), questions=listed)


def split(answer: str, count: int, *, whole: bool = True) -> list[str | None]:
    """The part of each question, None where it cannot be trusted. `whole` False: the answer was cut off, so its
    last part may be too."""
    marks = list(_MARKER.finditer(answer))
    numbers = [int(mark[1]) for mark in marks]
    parts: list[str | None] = [None] * count
    if not marks or answer[: marks[0].start()].strip() or numbers != sorted(set(numbers)) or numbers[-1] > count:
        return parts
    if numbers[0] < 1:
        return parts
    ends = [mark.start() for mark in marks[1:]] + [len(answer)]
    for mark, end in zip(marks, ends, strict=True):
        text = answer[mark.end() : end].strip()
        parts[int(mark[1]) - 1] = text or None
    if not whole:
        parts[numbers[-1] - 1] = None
    return parts
