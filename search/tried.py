"""Every form that a space gives a step is tried when the file is read: a typo must not wait for its draw."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from compressors.steps import BadStep, parse_step
from search.errors import Misfit
from search.knobs import Knob, forms_of, names_of
from search.step_space import StepSpace

MOST = 20_000  # forms of a step that are tried; one with more is tried on those


def try_values(steps: Sequence[StepSpace], knobs: Sequence[Knob]) -> None:
    """Raise `Misfit`, its place below `steps`, for a form that is no step, and for what never comes about."""
    for number, (step, name) in enumerate(zip(steps, names_of(steps), strict=True)):
        forms = list(itertools.islice(forms_of(number, steps, knobs), MOST))
        for form in forms:
            for one in _with_between(form, step):
                _try(one, number, step)
        if not forms:
            raise Misfit(f"{name} is never there: its conditions never hold together", number, "when")
        for field in step.fields:
            if len(forms) < MOST and not any(field in form for form in forms):
                told = f"{name}.{field} is never there: its conditions never hold together"
                raise Misfit(told, number, field, "when")


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


def _try(form: dict[str, Any], number: int, step: StepSpace) -> None:
    try:
        parse_step({"step": step.step} | form)
    except BadStep as fault:
        raise Misfit(str(fault), number, *[field for field in fault.faults if field in form][:1]) from None
