"""The space of recipes, read from YAML and checked before anything runs.

    steps:                      # applied in this order
      - step: drop_layers
        optional: true          # with and without it
        count: [1, 2, 3]        # a list is a choice
      - step: distill
        when: {drop_layers.use: true}   # there only where drop_layers is
        lr: {low: 1.0e-4, high: 1.0e-3, log: true}   # a range; points: 4 makes a grid of it
        tokens: 200000          # a plain value is fixed; {fixed: [..]} where the value itself is a list
      - step: quantize
        scheme: [W8A8, W4A16]
        group_size: {when: {scheme: W4A16}, values: [64, 128]}   # there only for that scheme
    seeds:                      # recipes known to be good, tried first
      - [{step: quantize, scheme: W8A8}]

Conditions (`when`): a step's names STEP.FIELD or STEP.use of any other step, before or behind it (the second step of a
name is name2); a field's may name a field of its own step by FIELD alone. Several must all hold, of a list of values
any. A field or step that is not there has no value, so a condition on it does not hold; `STEP.use: false` does. A field
is given as `{when: .., values: [..]}`, `{when: .., value: ..}` or `{when: .., low: .., high: ..}`.

Knows nothing of searchers: `sample` draws through any object with Optuna's suggest methods, and asks for a draw only
where its condition holds. Faults of the file are `Misfit`s with their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cluster.engines import EngineName
from compressors.step import Step
from compressors.steps import BadStep, parse_step
from evaluation.devices import DeviceName
from evaluation.suite import SuiteSpec, says_texts
from search.budget import Patience
from search.errors import BadInput, Misfit
from search.knobs import USE, Knob, at_ends, knobs_of, names_of
from search.ranges import Range, Suggests, is_number
from search.recipe import Recipe
from search.rungs import DEFAULT_RUNGS, Rung, check_rungs
from search.step_space import StepSpace, read_step
from search.tried import try_values, written_alike

__all__ = ["LANE", "SELF", "Range", "Space", "StepSpace", "Suggests"]

SELF = "self"  # as calibration: what the base model writes itself
LANE = "lane"
SchedulerName = Literal["stopping", "promoting"]  # search/schedulers has them
SearcherName = Literal["mixed", "gp", "tpe", "evolution", "nsga2", "random", "grid"]  # search/searchers has them


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
    eta: float = Field(1.3, gt=1, description="of the trials at a rung, the best 1/eta go on")
    scheduler: SchedulerName = Field(
        "stopping",
        description="stopping: a trial goes on at once or never; promoting: it waits until it is among the best, which "
        "suits few GPUs",
    )
    searcher: SearcherName = Field("gp", description="which recipe is tried next")
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
        None,
        description="the GPU that the model is meant for: its SpeedNorm there is predicted where none is at hand; not "
        "where several share a model",
    )
    submissions: str | None = Field(
        None, description="CSV of recorded submissions: what the contest's server would say is read off them"
    )
    gpus: int = Field(
        1,
        ge=1,
        description="GPUs of one node that a trial takes, for models that do not fit on one: vLLM serves them "
        "tensor-parallel; without a GPU as many processes share a model",
    )
    price: float | None = Field(None, gt=0, description="what one GPU, or this machine, costs an hour, in your money")
    device_hours: float | None = Field(
        None,
        gt=0,
        description="no trial is begun once GPUs, or machines without one, have worked so long in all; what finalists "
        "take once more comes on top",
    )
    patience: Patience | None = Field(None, description="no trial is begun once so many brought no gain")
    trials: int = Field(48, ge=1, description="recipes tried when --trials is not given")
    hours: float | None = Field(
        None,
        gt=0,
        description="wall clock after which trials are cut short, when --hours is not given; finalists and the "
        "submission's verification come on top, and `resume` has as much again",
    )
    training_seed: int = Field(
        0, ge=0, description="of training; searches with the same share what they build, whatever their --seed"
    )
    max_model_len: int = Field(4096, ge=128, description="prompt and answer together, tokens")
    thinking: bool = Field(False, description="let the chat template open a thinking block")

    @field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("steps: a list of steps is needed")
        found = []
        for number, one in enumerate(value):
            try:
                found.append(read_step(one))
            except Misfit as fault:
                raise fault.below(number) from None
        return found

    @field_validator("steps")
    @classmethod
    def _possible(cls, value: tuple[StepSpace, ...]) -> tuple[StepSpace, ...]:
        value = written_alike(value)
        return try_values(value, at_ends(knobs_of(value)))

    @field_validator("seeds", "lanes", mode="before")
    @classmethod
    def _read_recipes(cls, value: Any, info: ValidationInfo) -> Any:
        for number, recipe in enumerate(value if isinstance(value, list | tuple) else [value]):
            told = f"{info.field_name}.{number}"
            if not isinstance(recipe, list | tuple):
                raise Misfit(
                    f"{told}: a recipe is a list of steps, such as [{{step: quantize}}], not {recipe!r}", number
                )
            for position, step in enumerate(recipe):
                try:
                    parse_step(step)
                except BadStep as fault:
                    given = [field for field in fault.faults if field in step][:1]
                    raise Misfit(f"{told}: {fault}", number, position, *given) from None
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Space:
        if bool(self.steps) == bool(self.lanes):
            raise ValueError("a space has steps to choose from, or lanes to try one after another: give one of the two")
        if self.lanes and self.seeds:
            raise Misfit("seeds: lanes are tried in their order, there is nothing to seed", "seeds")
        if self.patience is not None and self.scheduler == "promoting":
            raise Misfit(
                "patience: with scheduler promoting most trials wait to the end, and nobody can say before that they "
                "brought no gain; give trials or device_hours, or scheduler stopping",
                "patience",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _comparable(cls, given: Any) -> Any:
        """Who names no rungs is given none by likelihood where no answer of the base's could be compared."""
        asked = given.get("evaluation") if isinstance(given, dict) else None
        if isinstance(asked, SuiteSpec):
            asked = asked.model_dump()
        if not isinstance(asked, dict) or given.get("rungs") is not None or asked.get("prompts"):
            return given
        names = asked.get("benchmarks")
        if isinstance(names, dict) and names and not any(map(says_texts, names)):
            return given | {"rungs": DEFAULT_RUNGS[1:]}
        return given

    @field_validator("rungs")
    @classmethod
    def _rising(cls, value: tuple[Rung, ...]) -> tuple[Rung, ...]:
        return check_rungs(value)

    @property
    def foretold(self) -> DeviceName | None:
        """The target, where its roofline tells of trials: it knows nothing of what several GPUs say to one another."""
        return self.target if self.gpus == 1 else None

    @property
    def knobs(self) -> Sequence[Knob]:
        """All that is decided on the way to a recipe, in an order in which every condition can be asked."""
        if self._ordered[0] is not self.steps:  # of the space that this one was copied from
            del self.__dict__["_ordered"]
        return self._ordered[1]

    @cached_property
    def _ordered(self) -> tuple[tuple[StepSpace, ...], tuple[Knob, ...]]:
        """The knobs, and the steps whose they are: asked for at every draw, they take as long as all the rest of it."""
        return self.steps, tuple(knobs_of(self.steps))

    def sample(self, draw: Suggests) -> Recipe:
        """Draw one recipe."""
        if self.lanes:
            return Recipe.of(self.lanes[draw.suggest_categorical(LANE, list(range(len(self.lanes))))])
        decided: dict[str, Any] = {}
        for knob in self.knobs:
            if knob.exists(decided):
                decided[knob.name] = knob.draw(draw)
            elif knob.field is None:
                decided[knob.name] = False
        return self.recipe_of(decided)

    def recipe_of(self, decided: dict[str, Any]) -> Recipe:
        """The recipe that values by knob's name make."""
        return Recipe.of(
            [
                {"step": step.step}
                | {one: decided[f"{name}.{one}"] for one in step.fields if f"{name}.{one}" in decided}
                for step, name in zip(self.steps, names_of(self.steps), strict=True)
                if decided[f"{name}.{USE}"]
            ]
        )

    def params_of(self, recipe: Recipe) -> dict[str, Any]:
        """The draws that give `recipe`. Raises `BadInput` when the space does not hold it."""
        if self.lanes:
            lanes = [Recipe.of(lane) for lane in self.lanes]
            if recipe not in lanes:
                raise BadInput(f"the recipe {recipe} is none of the space's lanes")
            return {LANE: lanes.index(recipe)}
        nearest: Recipe | None = None
        for placed in _placings(recipe.steps, self.steps):
            params = self._params(placed)
            drawn = self.sample(Replay(params))
            if drawn == recipe:
                return params
            nearest = nearest or drawn
        order = ", ".join(names_of(self.steps))
        why = f"its steps are not among {order} in this order" if nearest is None else f"nearest in it: {nearest}"
        raise BadInput(f"the recipe {recipe} lies outside the space ({why})")

    def seed_recipes(self) -> list[Recipe]:
        """What is tried first, in this order."""
        return [Recipe.of(seed) for seed in self.seeds or self.lanes]

    def _params(self, placed: dict[int, Step]) -> dict[str, Any]:
        """The draws that would put these steps, by their position in the space, into a recipe, if it holds them."""
        decided: dict[str, Any] = {}
        params = {}
        for knob in self.knobs:
            if knob.field is None:
                decided[knob.name] = knob.step in placed
            elif knob.exists(decided):
                decided[knob.name] = getattr(placed[knob.step], knob.field)
            if knob.drawn and knob.exists(decided):
                params[knob.name] = knob.drawn_as(decided[knob.name])
        return params


class Replay:
    """Answers suggestions from a dict, as far as it holds them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        value = self.params.get(name, choices[0])
        if value in choices:
            return value
        numbers = [one for one in choices if is_number(one)] if is_number(value) else []
        return min(numbers, key=lambda one: abs(one - value)) if numbers else choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = int(self.params.get(name, low))
        return low + (min(max(value, low), high) - low) // step * step

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return min(max(float(self.params.get(name, low)), low), high)


def _placings(recipe: Sequence[Step], steps: Sequence[StepSpace], begin: int = 0) -> Iterator[dict[int, Step]]:
    """Every way to find the steps of a recipe, in order, among those of a space: position there to step."""
    if not recipe:
        yield {}
        return
    for number in range(begin, len(steps)):
        if steps[number].step == recipe[0].step:
            for rest in _placings(recipe[1:], steps, number + 1):
                yield {number: recipe[0]} | rest
