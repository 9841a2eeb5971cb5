"""Multiple choice by generation: one prompt form, one reading of answers. Knows no data set's columns.

The prompt asks for the number alone; a model that says more is read by its last clear statement. An answer
that names no option, or none of the options that exist, scores 0: nothing is ever guessed for a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.benchmarks.base import BadData, Decoding, Item
from evaluation.benchmarks.choice_reader import chosen_option


def prompt(question: str, options: Sequence[str]) -> str:
    """The one user turn: question, numbered options, and the wish for a number alone."""
    listed = "\n".join(f"{number}. {option}" for number, option in enumerate(options, start=1))
    return f"다음 문제의 정답을 고르세요.\n\n{question}\n\n{listed}\n\n정답 번호만 쓰세요."


def item_of(name: str, number: int, row: dict[str, Any], category: str) -> Item:
    """Item of a row with `question`, `options` and `solution`; `BadData` if no option is the solution."""
    options = row["options"]
    if isinstance(options, str) or not hasattr(options, "__len__") or len(options) < 2:
        raise BadData(f"{name}, row {number}: column options must be a list of two options or more")
    options = [str(option) for option in options]
    solution = str(row["solution"]).strip()
    if not solution.isdecimal() or not 1 <= int(solution) <= len(options):  # "①" is a digit, and no number to Python
        raise BadData(
            f"{name}, row {number}: column solution holds {solution!r}, and must be the right option's number, "
            f"1 to {len(options)}"
        )
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
