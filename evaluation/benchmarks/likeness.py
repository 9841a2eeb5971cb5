"""Likeness: does a compressed model answer unlabelled prompts as the base model does?

Needs no labels and no judge, so it works for any base. The reference of an item is the base model's own answer, put
there by `evaluation.measure`. Does not know whether the base's answer was any good.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any, ClassVar

from evaluation.benchmarks.base import BadData, Decoding, Item


class Likeness:
    """Mean similarity of answers to the base's, 1 for the same text."""

    name: str = "likeness"
    columns: tuple[str, ...] = ("prompt",)
    needs_base: ClassVar[bool] = True
    max_tokens: ClassVar[int] = 32

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        for number, row in enumerate(rows):
            if not isinstance(row["prompt"], str) or not row["prompt"].strip():
                raise BadData(f"likeness, row {number}: column prompt is empty")
        return [Item(id=f"likeness-{number}", turns=(row["prompt"],)) for number, row in enumerate(rows)]

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self.max_tokens)

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """Similarity in [0, 1] of each turn's answer to the base's, averaged over turns."""
        pairs = list(zip(answers, item.reference, strict=True))
        return sum(similarity(answer, base) for answer, base in pairs) / len(pairs)


def similarity(answer: str, base: str) -> float:
    """Ratcliff-Obershelp similarity of the two texts' words: 2·matches / (words of both); 1 when both are empty."""
    return SequenceMatcher(None, answer.split(), base.split(), autojunk=False).ratio()
