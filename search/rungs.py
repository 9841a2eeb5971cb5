"""Rungs: how much a trial pays before it is judged. Each continues the one before, none repeats it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from search.errors import Misfit


class Rung(BaseModel):
    """One level of effort, as shares of the whole.

    Before the first a recipe must be feasible and, on the space's target, able to win at the speed that the roofline
    predicts (`prospects`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: float = Field(description="share of each benchmark's items answered by now", gt=0, le=1)
    tokens: float = Field(description="share of each recipe's training tokens spent by now", gt=0, le=1)
    by: Literal["answers", "likelihood"] = Field(
        "answers",
        description="what perf is read off: answers; or likelihood: whether the model would say what the base answers "
        "to these items. Speed is then the roofline's on the space's target, one timed pass's elsewhere. For the first "
        "rungs",
    )


DEFAULT_RUNGS = (
    Rung(items=0.1, tokens=0.1, by="likelihood"),
    Rung(items=0.1, tokens=0.1),
    Rung(items=0.34, tokens=0.34),
    Rung(items=1.0, tokens=1.0),
)


def check_rungs(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """Raise `ValueError` (a `Misfit` for one rung) unless shares never fall and the last rung is everything."""
    if not rungs:
        raise ValueError("no rungs: at least one is needed")
    for number, (before, after) in enumerate(pairwise(rungs), start=1):
        if after.items < before.items or after.tokens < before.tokens:
            raise Misfit(
                f"rungs must rise: {after.items:g}/{after.tokens:g} follows {before.items:g}/{before.tokens:g}", number
            )
        if after == before:
            raise Misfit(f"rung {after.items:g}/{after.tokens:g} stands there twice: it would tell nothing new", number)
        if after.by == "likelihood" and before.by == "answers":
            raise Misfit("rungs by likelihood come first: this one follows one by answers", number)
    if rungs[-1].by == "likelihood":
        raise Misfit("the last rung must go by answers: only a full measurement may win", len(rungs) - 1)
    if (rungs[-1].items, rungs[-1].tokens) != (1.0, 1.0):
        told = "the last rung must have items 1.0 and tokens 1.0: only a full measurement may win"
        raise Misfit(told, len(rungs) - 1)
    return rungs
