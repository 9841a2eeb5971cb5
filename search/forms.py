"""All that a space holds: its steps in all their forms, its recipes one after another, or some by chance."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from math import prod
from typing import Any

from compressors.step import Step
from compressors.steps import parse_step
from search.draws import Chance
from search.knobs import USE, Knob, assignments, at_ends, forms_of, knobs_of, names_of
from search.recipe import Recipe
from search.space import Space

MOST = 20_000  # recipes of a space that are gone through one by one


def steps_of(spec: Space) -> Iterator[Step]:
    """Every step of a space once, in all its forms; of a range without points only its two ends."""
    seen: set[str] = set()
    knobs = at_ends(knobs_of(spec.steps))
    forms = (
        {"step": spec.steps[number].step} | fields
        for number in range(len(spec.steps))
        for fields in forms_of(number, spec.steps, knobs)
    )
    for form in (*forms, *(step for recipe in spec.lanes or spec.seeds for step in recipe)):
        step = parse_step(form)
        if (text := step.model_dump_json()) not in seen:
            seen.add(text)
            yield step


def recipes_of(spec: Space) -> Iterator[Recipe]:
    """All recipes of a space, each once, but for the empty one, which is the base; of a range that is not `listed` only
    its two ends.
    """
    if spec.lanes:
        yield from {recipe.hash: recipe for recipe in spec.seed_recipes() if recipe.steps}.values()
        return
    names = names_of(spec.steps)
    made: dict[str, tuple[int, Step]] = {}  # by what was decided: a number of the step that comes of it, and the step
    numbers: dict[str, int] = {}
    seen: set[tuple[int, ...]] = {()}
    for decided in assignments(knobs_of(spec.steps)):
        steps = []
        for name, step in zip(names, spec.steps, strict=True):
            if not decided[f"{name}.{USE}"]:
                continue
            fields = {one: decided[f"{name}.{one}"] for one in step.fields if f"{name}.{one}" in decided}
            key = json.dumps([step.step, fields])
            if key not in made:
                one = parse_step({"step": step.step} | fields)
                made[key] = numbers.setdefault(one.model_dump_json(), len(numbers)), one
            steps.append(made[key])
        if (told := tuple(number for number, _ in steps)) not in seen:
            seen.add(told)
            yield Recipe([step for _, step in steps])


def drawn(spec: Space, number: int) -> Iterator[Recipe]:
    """So many recipes by chance, always the same, but for the empty ones among them.

    Each is as likely as any other, unlike in `Space.sample`, where an optional step is there every second time.
    """
    if spec.lanes:
        yield from itertools.islice(recipes_of(spec), number)
        return
    chance = Chance(0)
    groups = [_weighed(part) for part in _parts(knobs_of(spec.steps))]
    for _ in range(number):
        decided: dict[str, Any] = {}
        for ways, weights, others in groups:
            decided |= chance.random.choices(ways, weights)[0]
            for knob in others:
                if options := knob.ways(decided):
                    whole = knob.range is None or knob.range.listed
                    decided[knob.name] = chance.random.choice(options) if whole else knob.draw(chance)
        if (recipe := spec.recipe_of(decided)).steps:
            yield recipe


def _weighed(knobs: list[Knob]) -> tuple[list[dict[str, Any]], list[int], list[Knob]]:
    """Of a group of knobs: ways to decide those that others depend on, how many each leads to, and the others."""
    deciding, others = _deciding(knobs)
    ways = list(assignments(deciding))
    return ways, [prod(len(one.ways(decided)) or 1 for one in others) for decided in ways], others


def count_of(spec: Space) -> int:
    """How many recipes `recipes_of` yields, counted without making them.

    More than that where two ways to decide give one recipe: where a step of one name comes twice.
    """
    if spec.lanes:
        return len(list(recipes_of(spec)))
    knobs = knobs_of(spec.steps)
    return prod(_ways(part) for part in _parts(knobs)) - _may_be_empty(knobs)


def is_bounded(spec: Space) -> bool:
    """Whether all recipes can be named: every range is `listed`."""
    return all(ends.listed for step in spec.steps for ends in step.ranges.values())


def _parts(knobs: list[Knob]) -> Iterator[list[Knob]]:
    """The knobs in groups that know nothing of one another."""
    group = {knob.name: number for number, knob in enumerate(knobs)}
    for knob in knobs:
        for other in knob.when:
            old, new = group[knob.name], group[other]
            group = {name: new if number == old else number for name, number in group.items()}
    for number in dict.fromkeys(group.values()):
        yield [knob for knob in knobs if group[knob.name] == number]


def _ways(knobs: list[Knob]) -> int:
    """Ways to decide one group: those of the knobs that others depend on are gone through, the rest multiplied."""
    deciding, others = _deciding(knobs)
    return sum(prod(len(one.ways(decided)) or 1 for one in others) for decided in assignments(deciding))


def _deciding(knobs: list[Knob]) -> tuple[list[Knob], list[Knob]]:
    """Those that others depend on, and the rest."""
    asked = {name for knob in knobs for name in knob.when}
    return [knob for knob in knobs if knob.name in asked], [knob for knob in knobs if knob.name not in asked]


def _may_be_empty(knobs: list[Knob]) -> bool:
    nothing: dict[str, Any] = {knob.name: False for knob in knobs if knob.field is None}
    return all(False in knob.ways(nothing) for knob in knobs if knob.field is None)
