"""All that a space holds: its steps in all their forms, its recipes one after another. Draws nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from compressors.step import Step
from search.recipe import Recipe
from search.space import Space, StepSpace


def steps_of(spec: Space) -> Iterator[Step]:
    """Every step of a space once, in all its forms."""
    if spec.lanes:
        listed = [step for lane in spec.lanes for step in Recipe.of(lane).steps]
    else:
        listed = [Recipe.of([form]).steps[0] for step in spec.steps for form in _forms(step)]
    listed += [step for recipe in spec.seed_recipes() for step in recipe.steps]
    yield from {step.model_dump_json(): step for step in listed}.values()


def _forms(step: StepSpace) -> list[dict[str, Any]]:
    """All forms of one step; of a range only its two ends."""
    fields = {name: list(values) for name, values in step.choices.items()}
    fields |= {name: sorted({ends.low, ends.high}) for name, ends in step.ranges.items()}
    return [
        {"step": step.step, **step.fixed, **dict(zip(fields, values, strict=True))}
        for values in itertools.product(*fields.values())
    ]


def recipes_of(spec: Space) -> Iterator[Recipe]:
    """All recipes of a space, one after another; of a range only its two ends."""
    if spec.lanes:
        yield from (Recipe.of(lane) for lane in spec.lanes)
        return
    options: list[list[dict[str, Any] | None]] = []
    for step in spec.steps:
        options.append([None, *_forms(step)] if step.optional else [*_forms(step)])
    for draw in itertools.product(*options):
        yield Recipe.of([step for step in draw if step is not None])
