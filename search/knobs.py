"""What is decided on the way to a recipe, in an order in which every condition can be asked.

A knob is one decision: whether a step is there (`quantize.use`) or the value of a field (`quantize.scheme`). A second
step of a name is called name2. Knows nothing of recipes: `space` makes them of what was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from search.errors import Misfit, Place
from search.ranges import Range, Suggests
from search.step_space import Condition, StepSpace, same

USE = "use"


@dataclass(frozen=True)
class Knob:
    """One decision. `options`: what it can be; of a range not `listed` its ends and what conditions ask of it."""

    name: str
    step: int  # the position of its step
    field: str | None  # None: whether the step is there
    when: Condition  # by names of other knobs; all must hold, each by any of its values
    options: tuple[Any, ...]
    drawn: bool  # whether there is a choice to make
    range: Range | None = None

    def exists(self, decided: Mapping[str, Any]) -> bool:
        """Whether its conditions hold, those of knobs that are all decided."""
        return all(_holds(decided, name, values) for name, values in self.when.items())

    def ways(self, decided: Mapping[str, Any]) -> tuple[Any, ...]:
        """What it can be after `decided`; nothing for a field that does not exist then."""
        if self.exists(decided):
            return self.options
        return () if self.field else (False,)

    def draw(self, draw: Suggests) -> Any:
        """Its value, asked of `draw` where there is a choice."""
        if self.range is not None:
            return self.range.draw(draw, self.name)
        return draw.suggest_categorical(self.name, list(self.options)) if self.drawn else self.options[0]

    def drawn_as(self, value: Any) -> Any:
        """What must be drawn to come to `value`."""
        if self.range is not None:
            return self.range.drawn_as(value)
        return next((one for one in self.options if same(one, value)), value)

    def can_be(self, value: Any) -> bool:
        if self.range is not None:
            return self.range.holds(value)
        return any(same(one, value) for one in self.options)


def names_of(steps: Sequence[StepSpace]) -> list[str]:
    """What each step is called: its name, from the second of a name on with its number."""
    names = [one.step for one in steps]
    counts = [names[: number + 1].count(name) for number, name in enumerate(names)]
    return [name + (str(count) if count > 1 else "") for name, count in zip(names, counts, strict=True)]


def knobs_of(steps: Sequence[StepSpace]) -> list[Knob]:
    """All knobs, each after those that its conditions name; else in the order of the file.

    Raises `Misfit` (its place below `steps`) for a condition on something that is not there, on a value it never takes,
    and for conditions that go round in a circle.
    """
    knobs = {knob.name: knob for number in range(len(steps)) for knob in _of_step(number, steps)}
    _check_conditions(steps, knobs)
    knobs = {name: replace(knob, options=_with_asked(knob, knobs)) for name, knob in knobs.items()}
    ordered: dict[str, Knob] = {}
    for knob in knobs.values():
        _order(knob, knobs, ordered, ())
    return list(ordered.values())


def at_ends(knobs: Sequence[Knob]) -> list[Knob]:
    """The same, with a range that has no points at its two ends, and at what conditions ask of it."""
    return [
        knob
        if knob.range is None or knob.range.points is not None
        else replace(knob, options=tuple(dict.fromkeys((*knob.range.ends, *_asked(knob, knobs)))))
        for knob in knobs
    ]


def check_by_chance(steps: Sequence[StepSpace]) -> None:
    """Raise `Misfit`, its place below `steps`, for a condition on one number of a range that has no end of them."""
    knobs = {knob.name: knob for knob in knobs_of(steps)}
    for number, (step, name) in enumerate(zip(steps, names_of(steps), strict=True)):
        own: list[tuple[str, str, Place]] = [(one, one, (number, "when", one)) for one in step.when]
        own += [
            (reference, full_name(reference, name), (number, field, "when", reference))
            for field, condition in step.field_when.items()
            for reference in condition
        ]
        for written, full, place in own:
            ends = knobs[full].range
            if ends is not None and not ends.whole and not ends.listed:
                raise Misfit(
                    f"{name}: a condition on {written} would hold by no more than chance: it is drawn from {ends.low} "
                    f"to {ends.high} at any place between; give it points, or a list of choices",
                    *place,
                )


def assignments(knobs: Sequence[Knob], decided: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Every way to decide `knobs`, which come in order; of a range that is not `listed` only its two ends."""
    decided = {} if decided is None else decided
    if not knobs:
        yield decided
        return
    ways = knobs[0].ways(decided)
    if not ways:
        yield from assignments(knobs[1:], decided)
    for way in ways:
        yield from assignments(knobs[1:], decided | {knobs[0].name: way})


def forms_of(number: int, steps: Sequence[StepSpace], knobs: Sequence[Knob]) -> Iterator[dict[str, Any]]:
    """Every form of the fields of the step at `number` that some recipe has, some more than once."""
    name = names_of(steps)[number]
    mine = [knob for knob in knobs if knob.step == number]
    for decided in assignments(above(knobs, mine)):
        if decided[f"{name}.{USE}"]:
            yield {knob.field: decided[knob.name] for knob in mine if knob.field and knob.name in decided}


def above(knobs: Sequence[Knob], wanted: Sequence[Knob]) -> list[Knob]:
    """`wanted` and all that decide whether they exist, in order."""
    by_name = {knob.name: knob for knob in knobs}
    found: set[str] = set()
    left = [knob.name for knob in wanted]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += by_name[name].when
    return [knob for knob in knobs if knob.name in found]


def _holds(decided: Mapping[str, Any], name: str, values: Sequence[Any]) -> bool:
    return name in decided and any(same(decided[name], one) for one in values)


def _of_step(number: int, steps: Sequence[StepSpace]) -> Iterator[Knob]:
    step, name = steps[number], names_of(steps)[number]
    options = (False, True) if step.optional else (True,)
    yield Knob(f"{name}.{USE}", number, None, dict(step.when), options, step.optional)
    for field in step.fields:
        own = step.field_when.get(field, {})
        when = {f"{name}.{USE}": (True,)} | {full_name(one, name): values for one, values in own.items()}
        if field in step.fixed:
            yield Knob(f"{name}.{field}", number, field, when, (step.fixed[field],), False)
        elif field in step.choices:
            yield Knob(f"{name}.{field}", number, field, when, step.choices[field], True)
        else:
            ends = step.ranges[field]
            yield Knob(f"{name}.{field}", number, field, when, ends.numbers, True, ends)


def full_name(reference: str, step: str) -> str:
    """A field's condition names a field of its own step, or STEP.FIELD."""
    return reference if "." in reference else f"{step}.{reference}"


def _with_asked(knob: Knob, knobs: Mapping[str, Knob]) -> tuple[Any, ...]:
    """Its options; of a range with too many numbers, besides the ends, what some condition asks of it."""
    if knob.range is None or knob.range.listed:
        return knob.options
    return tuple(dict.fromkeys((*knob.options, *_asked(knob, knobs.values()))))


def _asked(knob: Knob, knobs: Iterable[Knob]) -> list[Any]:
    """Values of it that conditions ask for."""
    return [value for other in knobs for value in other.when.get(knob.name, ())]


def _check_conditions(steps: Sequence[StepSpace], knobs: Mapping[str, Knob]) -> None:
    """Every condition names a knob, and values that it can have."""
    for number, (step, name) in enumerate(zip(steps, names_of(steps), strict=True)):
        for reference, values in step.when.items():
            _check_condition(name, reference, reference, values, knobs, (number, "when", reference))
        for field, condition in step.field_when.items():
            for reference, values in condition.items():
                place = (number, field, "when", reference)
                _check_condition(f"{name}.{field}", reference, full_name(reference, name), values, knobs, place)


def _check_condition(
    whose: str, written: str, name: str, values: Sequence[Any], knobs: Mapping[str, Knob], place: Place
) -> None:
    if name not in knobs:
        known = ", ".join(one for one in knobs if one != whose and not one.startswith(f"{whose}."))
        told = (
            f"it may name what the space gives: {known}" if known else "the space gives nothing else that it may name"
        )
        raise Misfit(f"{whose}: unknown condition {written}; {told}", *place)
    other = knobs[name]
    possible = (*other.options, False) if other.field is None and other.when else other.options
    for value in values:
        if other.can_be(value) or any(same(one, value) for one in possible):
            continue
        told = f"from {other.range.low} to {other.range.high}" if other.range else " or ".join(map(repr, possible))
        raise Misfit(f"{whose}: the condition {written} {value!r} never holds: {name} is {told}", *place)


def _order(knob: Knob, knobs: Mapping[str, Knob], ordered: dict[str, Knob], asking: tuple[str, ...]) -> None:
    """Put `knob` behind all that its conditions name; `asking`: those that wait for it."""
    if knob.name in ordered:
        return
    if knob.name in asking:
        circle = (*asking[asking.index(knob.name) :], knob.name)
        # A field waits for its own step as a matter of course: the circle closes where somebody wrote a condition.
        written = [one for one in circle[:-1] if knobs[one].field is None or len(knobs[one].when) > 1]
        whose = knobs[written[0]]
        told = ", ".join(f"{one} needs {other}" for one, other in pairwise(circle))
        place = (whose.step, "when") if whose.field is None else (whose.step, whose.field, "when")
        raise Misfit(f"the conditions go round in a circle: {told}; take one away", *place)
    for name in knob.when:
        _order(knobs[name], knobs, ordered, (*asking, knob.name))
    ordered[knob.name] = knob
