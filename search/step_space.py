"""One step of a space, read from the form people write: what is fixed, what may vary, what exists under a condition.

Knows nothing of the other steps: whether a condition names something that is there, `knobs` sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compressors.step import Step
from compressors.steps import STEPS, BadStep, parse_step
from search.errors import Misfit, first_error, place_of
from search.ranges import Range, is_number

Condition = dict[str, tuple[Any, ...]]  # what another field (or a step's `use`) must be: any of these
LARGEST = 10**300  # a float holds a little more
WAYS = ("values", "value", "fixed")  # how a field is given beside `when`, besides low and high
LISTS = "a list is a choice, and this field's value is a list itself: write {fixed: [..]}, or [[..], [..]] to choose"
FORMS = "a field is a value, a list of choices, {low: .., high: ..}, {fixed: ..}, or {when: .., values: [..]}"


class StepSpace(BaseModel):
    """One step of the order, with what may vary in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str = Field(description="the step's name")
    optional: bool = Field(False, description="tried with and without it")
    fixed: dict[str, Any] = Field(default_factory=dict, description="values by field")
    choices: dict[str, tuple[Any, ...]] = Field(default_factory=dict, description="values to choose from by field")
    ranges: dict[str, Range] = Field(default_factory=dict, description="numbers to draw from by field")
    when: Condition = Field(default_factory=dict, description="the step is there only where all of these hold")
    field_when: dict[str, Condition] = Field(
        default_factory=dict, description="by field: it is there only where all of these hold"
    )

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that the space names, those with a value to draw in the order they are drawn."""
        return (*self.fixed, *self.choices, *self.ranges)


def same(one: Any, other: Any) -> bool:
    """Whether a file and a step mean the same value: a step makes a tuple of a list, and true is no 1."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def as_field(kind: type[Step], field: str, value: Any) -> Any:
    """`value` as a step has it, such as the number of the text 1e-4; as it is where the field cannot have it."""
    if isinstance(value, bool):  # pydantic takes it for a number: refused by who parses the step
        return value
    adapter = _adapter(kind, field)
    for one in (value, _number(value)):  # a whole field takes no text such as 4e4 for a number
        try:
            made = adapter.dump_python(adapter.validate_python(one), mode="json")
        except ValidationError:
            continue
        return value if same(value, made) else made
    return value


@cache
def _adapter(kind: type[Step], field: str) -> TypeAdapter[Any]:
    info = kind.model_fields[field]
    field_type: Any = Annotated[info.annotation, info]
    return TypeAdapter(field_type)


def read_step(raw: Any) -> StepSpace:
    """From the form people write; or from the form `model_dump` gives, which run.json holds. Raises `Misfit`."""
    if isinstance(raw, StepSpace):
        return raw
    if isinstance(raw, dict) and {"step", "fixed", "choices", "ranges"} <= raw.keys():
        return StepSpace.model_validate(raw)
    if not isinstance(raw, dict) or "step" not in raw:
        raise Misfit(f"a step needs a name: {raw!r} has no `step`")
    kind = kind_of(raw["step"])
    optional = raw.get("optional", False)
    if not isinstance(optional, bool):
        raise Misfit(f"step {raw['step']}: optional is true or false, not {optional!r}", "optional")
    parts: dict[str, dict[str, Any]] = {"fixed": {}, "choices": {}, "ranges": {}, "field_when": {}}
    for field, value in raw.items():
        if field in {"step", "optional", "when"}:
            continue
        if field not in kind.model_fields:
            fields = ", ".join(one for one in kind.model_fields if one != "step")
            raise Misfit(f"step {raw['step']} has no field {field} (got {value!r}); its fields: {fields}", field)
        try:
            _read_field(value, field, parts, kind)
        except Misfit as fault:
            raise Misfit(f"step {raw['step']}, field {field}: {fault}", field, *fault.place) from None
        _try_alone(raw["step"], field, parts)
    when = _read_condition(raw["when"]) if "when" in raw else {}
    return StepSpace(step=raw["step"], optional=optional, when=when, **parts)


def kind_of(name: Any) -> type[Step]:
    known: dict[str, type[Step]] = {step.model_fields["step"].default: step for step in STEPS}
    if not isinstance(name, str) or name not in known:
        raise Misfit(f"unknown step {name}; known steps: {', '.join(sorted(known))}", "step")
    return known[name]


def _is_whole(kind: type[Step], field: str) -> bool | None:
    """Whether the field is a whole number, or any; None where it is no number."""
    parts = [kind.model_fields[field].annotation]
    while any(map(get_args, parts)):  # unions, and what is annotated in them
        parts = [one for part in parts for one in get_args(part) or (part,)]
    return False if float in parts else True if int in parts else None


def _read_field(value: Any, field: str, parts: dict[str, dict[str, Any]], kind: type[Step]) -> None:
    """Sort what is written for a field into fixed, choices or ranges, and its condition, if it has one.

    The numbers of a range are those of the field, whole ones or any, however its ends are written.
    """
    if not isinstance(value, Mapping):
        value = {"values": value} if isinstance(value, list) else {"fixed": value}
    if "when" in value:
        parts["field_when"][field] = _read_condition(value["when"])
    left = {name: one for name, one in value.items() if name != "when"}
    ways = [name for name in WAYS if name in left]
    if not ways:
        parts["ranges"][field] = _read_range(left, _is_whole(kind, field))
        return
    if len(left) > 1:
        extra = next(name for name in left if name != ways[0])
        raise Misfit(f"{ways[0]} and {extra} do not go together; {FORMS}", extra)
    if ways != ["values"]:
        parts["fixed"][field] = as_field(kind, field, left[ways[0]])
        return
    parts["choices"][field] = _read_choices(left["values"], kind, field)


def _try_alone(step: str, field: str, parts: dict[str, dict[str, Any]]) -> None:
    """Whether each value can be that of its field, whatever the others are."""
    ends = parts["ranges"].get(field)
    single = [parts["fixed"][field]] if field in parts["fixed"] else []
    for number, value in enumerate(ends.numbers if ends else parts["choices"].get(field, single)):
        try:
            parse_step({"step": step, field: value})
        except BadStep as fault:
            if field in fault.faults:
                told = fault.faults[field]
                raise Misfit(f"{told}; {LISTS}" if "valid tuple" in told else told, field, number) from None


def _read_range(given: dict[str, Any], whole: bool | None) -> Range:
    if not {"low", "high"} <= given.keys():
        raise Misfit(f"neither a value nor a range: {given!r}; {FORMS}", *list(given)[:1])
    for end in ("low", "high"):
        value = _number(given[end])
        if is_number(value) and LARGEST < abs(value) < math.inf:
            raise Misfit(f"range: {end} is larger than any number of a step", end)
        if whole and isinstance(value, float):
            if not value.is_integer():
                raise Misfit(f"range: {end} {value} is no whole number, as those of this field are", end)
            given = given | {end: int(value)}
        elif whole is False and is_number(value):
            given = given | {end: float(value)}
    try:
        return Range.model_validate(given)
    except ValidationError as fault:
        raise Misfit(f"range: {first_error(fault)}", *place_of(fault)) from None


def _number(given: Any) -> Any:
    """What YAML takes for text, such as 1e4 without a point and a sign, as the number it is."""
    try:
        return float(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _read_choices(given: Any, kind: type[Step], field: str) -> tuple[Any, ...]:
    if not isinstance(given, list):
        raise Misfit(f"values is a list of choices, not {given!r}", "values")
    if not given:
        raise Misfit("an empty list of choices; name at least one")
    values = [as_field(kind, field, one) for one in given]
    for number, one in enumerate(values):
        if any(same(one, other) for other in values[:number]):
            raise Misfit(f"the choice {given[number]!r} stands there twice; leave one out", number)
    return tuple(values)


def _read_condition(given: Any) -> Condition:
    """`{name: value, ...}` or `{name: [value, ...], ...}`."""
    if not isinstance(given, dict) or not given or not all(isinstance(name, str) for name in given):
        raise Misfit(f"when is a mapping such as {{scheme: W4A16}} or {{drop_layers.use: true}}, not {given!r}", "when")
    empty = next((name for name, values in given.items() if values == []), None)
    if empty is not None:
        raise Misfit(f"when {empty}: an empty list never holds; name at least one value", "when", empty)
    return {name: tuple(values) if isinstance(values, list) else (values,) for name, values in given.items()}
