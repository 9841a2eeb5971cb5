"""Every form that a space gives a step is tried when the file is read: a typo must not wait for its draw.

What a step makes of a value is what the space has from then on (a number of the text 1e-4, layers in their order): what
is drawn and what recipes hold would not be found equal otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from compressors.step import Step
from compressors.steps import BadStep, parse_step
from search.errors import Misfit
from search.knobs import Knob, forms_of, full_name, names_of
from search.step_space import Condition, StepSpace, as_field, kind_of, same

MOST = 20_000  # forms of a step that are tried; one with more is tried on those


Made = dict[str, list[tuple[Any, Any]]]  # by STEP.FIELD: values as written, and as the step has them


def try_values(steps: Sequence[StepSpace], knobs: Sequence[Knob]) -> tuple[StepSpace, ...]:
    """The same with values as their steps have them.

    Raises `Misfit`, its place below `steps`, for a form that is no step, and for what never comes about.
    """
    made: Made = {}
    for number, (step, name) in enumerate(zip(steps, names_of(steps), strict=True)):
        forms = list(itertools.islice(forms_of(number, steps, knobs), MOST))
        for form in forms:
            for one in _with_between(form, step):
                found = _try(one, number, step).model_dump(mode="json")
                for field in (*step.fixed, *step.choices):
                    if field in one and not same(_made(one[field], f"{name}.{field}", made), found[field]):
                        made.setdefault(f"{name}.{field}", []).append((one[field], found[field]))
        if not forms:
            raise Misfit(f"{name} is never there: its conditions never hold together", number, "when")
        for field in step.fields:
            if len(forms) < MOST and not any(field in form for form in forms):
                told = f"{name}.{field} is never there: its conditions never hold together"
                raise Misfit(told, number, field, "when")
    return tuple(
        _made_by(lambda value, whose: _made(value, whose, made), step, name)
        for step, name in zip(steps, names_of(steps), strict=True)
    )


def written_alike(steps: Sequence[StepSpace]) -> tuple[StepSpace, ...]:
    """The same, values and what conditions ask of them as their fields have them, whatever the others are."""
    kinds = {name: kind_of(step.step) for step, name in zip(steps, names_of(steps), strict=True)}

    def make(value: Any, whose: str) -> Any:
        step, _, field = whose.rpartition(".")
        known = step in kinds and field in kinds[step].model_fields
        return as_field(kinds[step], field, value) if known else value

    return tuple(_made_by(make, step, name) for step, name in zip(steps, names_of(steps), strict=True))


def _made_by(make: Callable[[Any, str], Any], step: StepSpace, name: str) -> StepSpace:
    """A step called `name` with its values made by value and STEP.FIELD."""
    return step.model_copy(
        update={
            "fixed": {field: make(value, f"{name}.{field}") for field, value in step.fixed.items()},
            "choices": {
                field: _each_once([make(value, f"{name}.{field}") for value in values])
                for field, values in step.choices.items()
            },
            **_conditions(step, name, make),
        }
    )


def _conditions(step: StepSpace, name: str, make: Callable[[Any, str], Any]) -> dict[str, Any]:
    """Of a step called `name`, its values made by value and STEP.FIELD."""

    def made(given: Condition) -> Condition:
        return {one: tuple(make(value, full_name(one, name)) for value in values) for one, values in given.items()}

    return {"when": made(step.when), "field_when": {field: made(one) for field, one in step.field_when.items()}}


def _each_once(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(one for number, one in enumerate(values) if not any(same(one, other) for other in values[:number]))


def _made(value: Any, name: str, made: Made) -> Any:
    return next((one for written, one in made.get(name, ()) if same(written, value)), value)


def _with_between(form: dict[str, Any], step: StepSpace) -> Iterator[dict[str, Any]]:
    """A form, and beside one at the lower end of a range that with a number from its middle."""
    yield form
    middle = {
        field: (ends.low + ends.high) // 2 if ends.whole else (ends.low + ends.high) / 2
        for field, ends in step.ranges.items()
        if ends.points is None and field in form and form[field] == ends.low
    }
    if middle:
        yield form | middle


def _try(form: dict[str, Any], number: int, step: StepSpace) -> Step:
    try:
        return parse_step({"step": step.step} | form)
    except BadStep as fault:
        raise Misfit(str(fault), number, *[field for field in fault.faults if field in form][:1]) from None
