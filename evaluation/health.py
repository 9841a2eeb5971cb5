"""Is what a model says an answer at all? Its answers beside the base's, and a look at its numbers after a load.

A model is told apart from a merely bad one by what no working model shows: nine in ten of its answers never end, say
nothing, are no text, or hold tokens that nobody knows. Shares below that are told and judge nobody.
Knows nothing of items, grades or scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.protocol import Answer, EngineFault

Sign = Literal["cut", "empty", "garbled", "unknown"]

SIGNS: dict[Sign, str] = {
    "cut": "never stops",
    "empty": "gives no answer",
    "garbled": "emits bytes that are no UTF-8",
    "unknown": "emits tokens that its tokenizer does not know",
}
BROKEN = 0.9  # of all answers: a few lucky stops are no sign of health
HALF = 0.5  # of each benchmark's; and what the base shows in more is the benchmark's doing, a tight limit say
LEAST = 5  # answers: below that a chance of one half may do it
LIMIT = "length"  # why vLLM ends what met its limit
FREE_TOKENS = 512  # room to end in, for who was cut at a benchmark's few tokens; twice the limit where that is more
LOOK = "1 2 3 4 5 6 7 8. The capital of South Korea is Seoul. 대한민국의 수도는 서울이다."
LOOK_TOKENS = 64


class ModelFault(EngineFault):
    """The engine is sound, the model is not: the message says what it does."""


class Health(BaseModel):
    """Counts of answers: all of them, and those that show a sign."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: int = 0
    cut: int = 0
    empty: int = 0
    garbled: int = 0
    unknown: int = 0

    def __add__(self, other: Health) -> Health:
        return Health(**{name: getattr(self, name) + getattr(other, name) for name in Health.model_fields})

    def share(self, sign: Sign) -> float:
        return float(getattr(self, sign) / self.answers) if self.answers else 0.0

    def __str__(self) -> str:
        told = [f"{self.share(sign):.0%} {sign}" for sign in SIGNS if getattr(self, sign)]
        return ", ".join(told) or "all answers end, say something and are text"


def health_of(answers: Iterable[Answer]) -> Health:
    """Counted over one batch; the one character that a limit may cut in two is no sign."""
    found = Health()
    for answer in answers:
        cut = answer.finish == LIMIT
        found += Health(
            answers=1,
            cut=cut,
            empty=not answer.text.removeprefix("<think>").strip(),  # the tag may be the prompt's own
            garbled=answer.bad_bytes > cut,
            unknown=answer.unknown > 0,
        )
    return found


def signs(model: Mapping[str, Health], base: Mapping[str, Health]) -> dict[Sign, list[str]]:
    """By sign that the model is broken, the benchmarks that show it: those where the base is sound."""
    found: dict[Sign, list[str]] = {}
    for sign in SIGNS:
        told = [name for name, theirs in base.items() if theirs.answers and theirs.share(sign) <= HALF]
        mine = sum((model[name] for name in told), Health())
        if (
            mine.answers >= LEAST
            and mine.share(sign) >= BROKEN
            and all(model[name].share(sign) > HALF for name in told)
        ):
            found[sign] = told
    return found


def describe(found: Iterable[Sign], model: Mapping[str, Health], base: Mapping[str, Health]) -> str:
    """One line for a fault."""
    mine, theirs = (sum(one.values(), Health()) for one in (model, base))
    said = " and ".join(SIGNS[sign] for sign in found)
    return f"the model {said}: of {mine.answers} answers {mine}; the base's: {theirs}"


def ends(
    engine: Engine, conversations: Sequence[list[dict[str, str]]], limits: Sequence[Decoding], thinking: bool
) -> bool:
    """Whether the loaded model ends any answer by itself, given more room than the limits that cut it."""
    room = [Decoding(max_tokens=max(FREE_TOKENS, 2 * one.max_tokens)) for one in limits]
    return any(answer.finish != LIMIT for answer in engine.generate(conversations, room, thinking).answers)


def look(engine: Engine) -> None:
    """Raise `ModelFault` when the loaded model's logits are no numbers.

    Nothing else would say so: vLLM takes NaN for the likeliest of all tokens, and answers with token 0 to the limit.
    """
    scored = engine.score([LOOK], top=1, max_tokens=LOOK_TOKENS)
    if not all(math.isfinite(value) for one in scored for value in one.actual):
        raise ModelFault(
            f"the model's logits are NaN or infinite on {LOOK[:15]!r}: a weight or an activation overflowed"
        )
