"""The space of recipes, read from YAML and checked before anything runs.

    steps:                      # applied in this order
      - step: drop_layers
        optional: true          # with and without it
        count: [1, 2, 3]        # a list is a choice
      - step: distill
        optional: true
        lr: {low: 1.0e-4, high: 1.0e-3, log: true}   # a range
        tokens: 200000          # a plain value is fixed; {fixed: [..]} where the value itself is a list
    seeds:                      # recipes known to be good, tried first
      - [{step: quantize, scheme: W8A8}]

Knows nothing of searchers: `sample` draws through any object with Optuna's suggest methods.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cluster.engines import EngineName
from compressors.step import Step
from compressors.steps import STEPS
from evaluation.devices import DeviceName
from evaluation.suite import SuiteSpec
from search.budget import Patience
from search.errors import BadInput, first_error
from search.recipe import Recipe
from search.rungs import DEFAULT_RUNGS, Rung, check_rungs

SELF = "self"  # as calibration: what the base model writes itself
LANE = "lane"
SchedulerName = Literal["stopping", "promoting"]  # search/schedulers has them
SearcherName = Literal["mixed", "tpe", "evolution", "nsga2", "random", "grid"]  # search/searchers has them


class Suggests(Protocol):
    """The part of optuna.Trial that a space draws with."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


class Range(BaseModel):
    """Numbers between two ends, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float = Field(description="the least that is drawn")
    high: int | float = Field(description="the most that is drawn")
    step: int = Field(1, ge=1, description="distance between whole numbers that are drawn")
    log: bool = Field(False, description="drawn evenly on a logarithmic scale")

    @model_validator(mode="after")
    def _drawable(self) -> Range:
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low}")
        if self.step != 1 and (self.log or not whole):
            raise ValueError("step goes with whole numbers and without log")
        return self


class StepSpace(BaseModel):
    """One step of the order, with what may vary in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str = Field(description="the step's name")
    optional: bool = Field(False, description="tried with and without it")
    fixed: dict[str, Any] = Field(default_factory=dict, description="values by field")
    choices: dict[str, tuple[Any, ...]] = Field(default_factory=dict, description="values to choose from by field")
    ranges: dict[str, Range] = Field(default_factory=dict, description="numbers to draw from by field")


class Space(BaseModel):
    """Everything a search needs to know besides the base model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field("", description="what the space is for, in words")
    steps: tuple[StepSpace, ...] = Field((), description="what recipes are made of, applied in this order")
    lanes: tuple[tuple[dict[str, Any], ...], ...] = Field(
        (), description="in place of steps: these recipes and no other"
    )
    seeds: tuple[tuple[dict[str, Any], ...], ...] = Field((), description="recipes tried first, in this order")
    evaluation: SuiteSpec = Field(description="what models are asked, and who rates their answers")
    calibration: str = Field(
        SELF,
        description="chat rows for calibration and recovery (column conversations): a file, hub:OWNER/NAME, or self: "
        "the base writes them",
    )
    self_rows: int = Field(512, ge=16, description="conversations that the base writes where calibration is self")
    rungs: tuple[Rung, ...] = Field(DEFAULT_RUNGS, description="what a trial pays before it is judged, rising to all")
    eta: float = Field(3.0, gt=1, description="of the trials at a rung, the best 1/eta go on")
    scheduler: SchedulerName = Field(
        "stopping",
        description="stopping: a trial goes on at once or never; promoting: it waits until it is among the best, which "
        "suits few GPUs",
    )
    searcher: SearcherName = Field("tpe", description="which recipe is tried next")
    engine: EngineName = Field("own", description="own: this environment's vLLM; contest: 0.14.1, see `make contest`")
    passes: int = Field(3, ge=2, description="timed passes over each slice of items, at every rung")
    within: float = Field(
        0.01, gt=0, description="half of SpeedNorm's 95 % interval at which timing on the last rung may end"
    )
    timing_seconds: float = Field(
        60.0, ge=0, description="wall seconds of more passes on the last rung after which timing ends in any case"
    )
    finalists: int = Field(
        3, ge=0, description="of the best, those measured again from nothing before one is the winner; 0: none"
    )
    target: DeviceName | None = Field(
        None, description="the GPU that the model is meant for: its SpeedNorm there is predicted where none is at hand"
    )
    submissions: str | None = Field(
        None, description="CSV of recorded submissions: what the contest's server would say is read off them"
    )
    price: float | None = Field(None, gt=0, description="what one GPU, or this machine, costs an hour, in your money")
    device_hours: float | None = Field(
        None, gt=0, description="no trial is begun once GPUs, or machines without one, have worked so long in all"
    )
    patience: Patience | None = Field(None, description="no trial is begun once so many brought no gain")
    trials: int = Field(14, ge=1, description="recipes tried when --trials is not given")
    max_model_len: int = Field(4096, ge=128, description="prompt and answer together, tokens")
    thinking: bool = Field(False, description="let the chat template open a thinking block")

    @field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("steps: a list of steps is needed")
        return [_read_step(one) for one in value]

    @field_validator("seeds", "lanes", mode="before")
    @classmethod
    def _read_recipes(cls, value: Any, info: ValidationInfo) -> Any:
        for number, recipe in enumerate(value if isinstance(value, list | tuple) else [value]):
            place = f"{info.field_name}.{number}"
            if not isinstance(recipe, list | tuple):
                raise ValueError(f"{place}: a recipe is a list of steps, such as [{{step: quantize}}], not {recipe!r}")
            try:
                Recipe.of(recipe)
            except ValueError as fault:
                raise ValueError(f"{place}: {fault}") from None
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Space:
        if bool(self.steps) == bool(self.lanes):
            raise ValueError("a space has steps to choose from, or lanes to try one after another: give one of the two")
        if self.lanes and self.seeds:
            raise ValueError("seeds: lanes are tried in their order, there is nothing to seed")
        return self

    @field_validator("rungs")
    @classmethod
    def _rising(cls, value: tuple[Rung, ...]) -> tuple[Rung, ...]:
        return check_rungs(value)

    def sample(self, draw: Suggests) -> Recipe:
        """Draw one recipe."""
        if self.lanes:
            return Recipe.of(self.lanes[draw.suggest_categorical(LANE, list(range(len(self.lanes))))])
        chosen = []
        for number, space in enumerate(self.steps):
            name = self._name(number)
            if space.optional and not draw.suggest_categorical(f"{name}.use", [False, True]):
                continue
            fields = dict(space.fixed)
            for field, choices in space.choices.items():
                fields[field] = draw.suggest_categorical(f"{name}.{field}", list(choices))
            for field, ends in space.ranges.items():
                fields[field] = _draw_range(draw, f"{name}.{field}", ends)
            chosen.append({"step": space.step, **fields})
        return Recipe.of(chosen)

    def params_of(self, recipe: Recipe) -> dict[str, Any]:
        """The draws that give `recipe`. Raises `BadInput` when the space does not hold it."""
        if self.lanes:
            lanes = [Recipe.of(lane) for lane in self.lanes]
            if recipe not in lanes:
                raise BadInput(f"the recipe {recipe} is none of the space's lanes")
            return {LANE: lanes.index(recipe)}
        params: dict[str, Any] = {}
        left = list(recipe.steps)
        for number, space in enumerate(self.steps):
            name = self._name(number)
            step = left[0] if left and left[0].step == space.step else None
            if space.optional:
                params[f"{name}.use"] = step is not None
            if step is None:
                continue
            left.pop(0)
            for field, choices in space.choices.items():
                params[f"{name}.{field}"] = _as_written(getattr(step, field), choices)
            for field in space.ranges:
                params[f"{name}.{field}"] = getattr(step, field)
        drawn = self.sample(_Replay(params))
        if drawn != recipe:
            raise BadInput(f"the recipe {recipe} lies outside the space (nearest in it: {drawn})")
        return params

    def seed_recipes(self) -> list[Recipe]:
        """What is tried first, in this order."""
        return [Recipe.of(seed) for seed in self.seeds or self.lanes]

    def _name(self, number: int) -> str:
        same = [other for other in self.steps[:number] if other.step == self.steps[number].step]
        return self.steps[number].step + (str(len(same) + 1) if same else "")


class _Replay:
    """Answers suggestions from a dict, as far as it holds them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        value = self.params.get(name, choices[0])
        return value if value in choices else choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = int(self.params.get(name, low))
        return min(max(value, low), high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return min(max(float(self.params.get(name, low)), low), high)


def _as_written(value: Any, choices: Iterable[Any]) -> Any:
    """The choice that gave `value`: a step makes a tuple of what a file can only write as a list."""
    return next((one for one in choices if json.dumps(one) == json.dumps(value)), value)


def _read_step(raw: Any) -> StepSpace:
    """From the form people write; or from the form `model_dump` gives, which run.json holds."""
    if isinstance(raw, StepSpace):
        return raw
    if isinstance(raw, dict) and raw.keys() == StepSpace.model_fields.keys():
        return StepSpace.model_validate(raw)
    if not isinstance(raw, dict) or "step" not in raw:
        raise ValueError(f"a step needs a name: {raw!r} has no `step`")
    known: dict[str, type[Step]] = {step.model_fields["step"].default: step for step in STEPS}
    name = raw["step"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown step {name}; known steps: {', '.join(sorted(known))}")
    fixed: dict[str, Any] = {}
    choices: dict[str, tuple[Any, ...]] = {}
    ranges: dict[str, Range] = {}
    for field, value in raw.items():
        if field in {"step", "optional"}:
            continue
        if field not in known[name].model_fields:
            fields = ", ".join(one for one in known[name].model_fields if one != "step")
            raise ValueError(f"step {name} has no field {field} (got {value!r}); its fields: {fields}")
        if isinstance(value, dict) and "fixed" in value:
            fixed[field] = value["fixed"]
        elif isinstance(value, dict):
            try:
                ranges[field] = Range.model_validate(value)
            except ValidationError as fault:
                raise ValueError(f"step {name}, range of {field}: {first_error(fault)}") from fault
        elif isinstance(value, list):
            choices[field] = tuple(value)
        else:
            fixed[field] = value
    space = StepSpace(step=name, optional=bool(raw.get("optional", False)), fixed=fixed, choices=choices, ranges=ranges)
    _try_values(space)
    return space


def _try_values(space: StepSpace) -> None:
    """Every value must make a valid step: a typo in a choice must not wait for its draw."""
    first = {field: values[0] for field, values in space.choices.items() if values}
    first |= {field: ends.low for field, ends in space.ranges.items()}
    start = {"step": space.step, **space.fixed, **first}
    for field, values in space.choices.items():
        if not values:
            raise ValueError(f"step {space.step}, field {field}: an empty list of choices")
        for value in values:
            Recipe.of([start | {field: value}])
    for field, ends in space.ranges.items():
        middle = (ends.low + ends.high) / 2
        for value in (ends.low, ends.high, int(middle) if isinstance(ends.low, int) else middle):
            Recipe.of([start | {field: value}])
    Recipe.of([start])


def _draw_range(draw: Suggests, name: str, ends: Range) -> int | float:
    if isinstance(ends.low, int) and isinstance(ends.high, int):
        return draw.suggest_int(name, ends.low, ends.high, step=ends.step, log=ends.log)
    return draw.suggest_float(name, float(ends.low), float(ends.high), log=ends.log)
