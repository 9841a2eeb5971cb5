"""Multiple choice by generation: one prompt form, one reading of answers. Knows no data set's columns.

The prompt asks for the number alone; a model that says more is read by its last clear statement. An answer
that names no option, or none of the options that exist, scores 0: nothing is ever guessed for a model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from evaluation.benchmarks.base import BadData, Decoding, Item

_CIRCLED = {chr(first + n): f" {n + 1}번 " for first in (0x2460, 0x2776) for n in range(9)}  # ① and ❶
_LETTER = r"(?<![A-Za-z0-9])[A-E](?![A-Za-z0-9'])"
_DIGIT = r"(?<![0-9A-Za-z.,\-])[1-9](?![0-9A-Za-z%]|[.,][0-9])"
_OPTION = rf"(?:{_DIGIT}|{_LETTER})"
_NOT_DENIED = r"(?!\s*\)?\s*번?\s*(?:은|는|이|가)?\s*(?:아니|아닌|틀|not\b))"

# From the plainest statement to the faintest; within one kind the last in the text counts.
_STATEMENTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\\boxed\{{\s*(?:\\text\{{)?\s*\(?({_OPTION})",
        r"(?:정답|해답|답안|(?<![가-힣])답|[Aa]nswer|ANSWER)(?:\s*번호)?"
        rf"(?:\s|은|는|이|가|을|를|로|:|=|\*|\"|'|\(|\[|\bis\b|\boption\b|\bnumber\b)*({_OPTION}){_NOT_DENIED}",
        rf"({_OPTION})\s*\)?\s*번?\s*(?:이|가|을|를|은|는|으로|로)?\s*(?:정답|답이|답입|맞(?!지)|옳(?!지)|고르|선택)",
        rf"({_DIGIT})\s*번{_NOT_DENIED}",
        rf"[(\[]\s*({_OPTION})\s*[)\]]{_NOT_DENIED}",
        rf"^\W*({_OPTION})\W*$",
        rf"^\W*({_OPTION})\s*[.):]",
        rf"({_DIGIT})(?=\s*(?:입니다|이다|임|이에요|예요|으로|로|이라|\.|,|$))",
    )
)


def prompt(question: str, options: Sequence[str]) -> str:
    """The one user turn: question, numbered options, and the wish for a number alone."""
    listed = "\n".join(f"{number}. {option}" for number, option in enumerate(options, start=1))
    return f"다음 문제의 정답을 고르세요.\n\n{question}\n\n{listed}\n\n정답 번호만 쓰세요."


def after_thinking(answer: str) -> str:
    """What follows the last `</think>`; nothing when thinking began and never ended."""
    if "</think>" in answer:
        return answer.rsplit("</think>", 1)[1]
    return "" if "<think>" in answer else answer


def chosen_option(answer: str, count: int) -> int | None:
    """The option number (1 to `count`) that `answer` settles on, or None.

    Reads "3", "③", "(3)", "3번", "정답은 3번입니다", "The answer is C", "\\boxed{3}". Options that are denied
    ("3번이 아니라 2번") do not count. The plainest kind of statement wins; of one kind, the last.
    """
    text = after_thinking(answer)
    for mark, spelled in _CIRCLED.items():
        text = text.replace(mark, spelled)
    text = unicodedata.normalize("NFKC", text).replace("**", "").replace("__", "")
    text = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    for statement in _STATEMENTS:
        found = list(re.finditer(statement, text)) or list(re.finditer(statement.pattern, text, re.MULTILINE))
        if found:
            said = found[-1].group(1)
            number = int(said) if said.isdigit() else ord(said) - ord("A") + 1
            return number if number <= count else None
    return None


def item_of(name: str, number: int, row: dict[str, Any], category: str) -> Item:
    """Item of a row with `question`, `options` and `solution`; `BadData` if no option is the solution."""
    options = row["options"]
    if isinstance(options, str) or not hasattr(options, "__len__") or len(options) < 2:
        raise BadData(f"{name}, row {number}: column options must be a list of two options or more")
    options = [str(option) for option in options]
    solution = str(row["solution"]).strip()
    if not solution.isdigit() or not 1 <= int(solution) <= len(options):
        raise BadData(f"{name}, row {number}: solution {solution!r} is none of the options 1 to {len(options)}")
    return Item(
        id=f"{name}-{number}",
        turns=(prompt(str(row["question"]), options),),
        reference={"solution": int(solution), "options": len(options)},
        category=category,
    )


class MultipleChoice:
    """What the multiple-choice benchmarks share: decoding and grading."""

    max_tokens = 32  # "정답은 3번입니다." and a little more; longer answers are cut and read as far as they go

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self.max_tokens)

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """1 for the right option, else 0."""
        said = chosen_option(answers[0], item.reference["options"]) if answers else None
        return float(said == item.reference["solution"])
