"""Multiple choice by likelihood: which option would the model rather name? Generates nothing, so reads nothing.

The prompt is the one of `multiple_choice`; the answers weighed are one sentence that differs in the number alone, so
that a model is not judged by how it likes to begin. Knows no engine: it names answers and grades their
log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evaluation.benchmarks.base import Item
from evaluation.benchmarks.kmmlu_pro import KmmluPro
from evaluation.benchmarks.kmmlu_redux import KmmluRedux


class ByLikelihood:
    """What benchmarks share whose options are weighed."""

    weighs: ClassVar[bool] = True

    def options(self, item: Item) -> tuple[str, ...]:
        """The answers to weigh, in the order of the item's options."""
        return tuple(f"정답은 {number}번입니다." for number in range(1, item.reference["options"] + 1))

    def grade_likelihoods(self, item: Item, logprobs: Sequence[float]) -> float:
        """1 when the right option is the likeliest, else 0; of equals the first counts."""
        return float(max(range(len(logprobs)), key=lambda place: logprobs[place]) + 1 == item.reference["solution"])


class KmmluProLikelihood(ByLikelihood, KmmluPro):
    """KMMLU-Pro's rows; the value is the share of items whose right option is the likeliest."""

    name = "kmmlu_pro_likelihood"


class KmmluReduxLikelihood(ByLikelihood, KmmluRedux):
    """KMMLU-Redux's rows; the value is the share of items whose right option is the likeliest."""

    name = "kmmlu_redux_likelihood"
