"""`squeeze plan`: what a search would try, refuse, cost and find done already. Starts, builds and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from cluster.resources import find_device
from compressors.shape import check_recipe, read_shape
from compressors.step import EngineTraits, Infeasible, ModelShape
from evaluation.description import Description
from evaluation.roofline import predict
from evaluation.workload import CONTEST
from search.bases import find_base
from search.errors import BadInput
from search.estimate import cost_of
from search.forms import MOST, count_of, drawn, is_bounded, recipes_of
from search.plan_store import hits
from search.plan_text import lines_of
from search.recipe import Recipe
from search.refusals import reasons
from search.serving import traits, traits_anywhere
from search.space import Space
from search.space_file import read_space
from search.start import check_inputs
from search.target import as_submission, base_described, described, device_of, learned

SAMPLE = 2_000  # draws from a space that has too many recipes to go through


@dataclass
class Looked:
    """What was found of the recipes that were looked at. Names are for people: two recipes may have the same."""

    feasible: list[Recipe] = field(default_factory=list)
    models: list[Description] = field(default_factory=list)  # what the feasible ones make
    refused: list[tuple[str, str]] = field(default_factory=list)  # names and reasons

    @property
    def names(self) -> list[str]:
        return [str(recipe) for recipe in self.feasible]


def plan(
    space: str, base: str, store: Path | None = None, trials: int | None = None, hours: float | None = None
) -> dict[str, Any]:
    """Everything that can be said of a search before it begins, `text` for people. Raises `BadInput`.

    `trials` and `hours` are those that the search will be given, in place of the space's.
    """
    file, folder = read_space(space), find_base(base, weights=False)
    spec = file.space.model_copy(update={"trials": trials or file.space.trials, "hours": hours or file.space.hours})
    if store is not None and not store.is_dir():
        raise BadInput(f"no store at {store}: give the folder that a search had as --store, or RUN/store")
    engine, unread = engine_for(spec), list[str]()
    with file.told():
        left_out = check_inputs(spec, folder, engine, unread)
    count = count_of(spec)
    sampled = count > MOST
    recipes = list(drawn(spec, SAMPLE) if sampled else recipes_of(spec))
    seeds = spec.seed_recipes()
    original = base_described(folder)
    looked = look(dict.fromkeys([*seeds, *recipes]), folder, engine, original is not None)
    device = device_of(spec.foretold) if spec.foretold is not None else None
    begun = min(spec.trials, _all_trials(looked, seeds)) if is_bounded(spec) and not sampled else spec.trials
    looked_at = len(looked.feasible) + len(looked.refused)
    told: dict[str, Any] = {
        "engine": engine.name,
        "recipes": count if sampled else looked_at,
        "at_least": not is_bounded(spec),
        "looked_at": looked_at,
        "sampled": sampled,
        "base_known": original is not None,
        "feasible": looked.names,
        "infeasible": dict(looked.refused),
        "reasons": reasons(looked.refused),
        "here": here(spec, looked, read_shape(folder), engine),
        "seeds": [str(seed) for seed in dict.fromkeys(seeds)],
        "predicted": predictions(spec, looked, folder, original),
        "size_bytes": sizes(looked, original),
        "trials": begun,
        "hours": spec.hours,
        "cost": cost_of(spec, begun, looked.feasible, looked.models, original, device).model_dump(),
        "rungs": [rung.model_dump() for rung in spec.rungs],
        "store": hits(store, spec, looked.feasible, folder, engine.device) if store is not None else None,
        "left_out": left_out,
        "unread": unread,
    }
    return told | {"text": "\n".join(lines_of(spec, told))}


def _all_trials(looked: Looked, seeds: Sequence[Recipe]) -> int:
    """How many trials go through all: what cannot be built is none, but as a seed or lane."""
    refused = {name for name, _ in looked.refused}
    return len(looked.feasible) + len({seed for seed in seeds if str(seed) in refused})


def engine_for(spec: Space) -> EngineTraits:
    """What the recipes will be served by: where a target is named, this engine on a GPU, whatever is at hand here."""
    if spec.target is None or find_device() != "cpu":
        return traits(find_device(), spec.engine, spec.gpus)
    return traits_anywhere("cuda", spec.engine, spec.gpus)


def look(recipes: Iterable[Recipe], folder: Path, engine: EngineTraits, describing: bool = True) -> Looked:
    """Which of the recipes make sense on `engine`, and, if `describing`, what they make of the model in `folder`."""
    found, shape = Looked(), read_shape(folder)
    for recipe in recipes:
        why = refusal(recipe, shape, engine)
        if why is not None:
            found.refused.append((str(recipe), why))
        else:
            found.feasible.append(recipe)
            if describing:
                found.models.append(described(recipe, folder))
    return found


def refusal(recipe: Recipe, shape: ModelShape, engine: EngineTraits) -> str | None:
    """Why a recipe makes no sense, or None."""
    try:
        check_recipe(recipe.steps, shape, engine)
    except Infeasible as fault:
        return str(fault)
    return None


def here(spec: Space, looked: Looked, shape: ModelShape, engine: EngineTraits) -> dict[str, Any] | None:
    """Where the plan is for a GPU and this machine has none: how many of the recipes would do here."""
    try:
        mine = traits(find_device(), spec.engine, spec.gpus)
    except BadInput as fault:
        return {"engine": None, "feasible": 0, "why": str(fault)}
    if mine.name == engine.name:
        return None
    able = sum(refusal(one, shape, mine) is None for one in looked.feasible)
    return {"engine": mine.name, "feasible": able, "why": None}


def predictions(spec: Space, looked: Looked, folder: Path, original: Description | None) -> dict[str, dict[str, Any]]:
    """By recipe: SpeedNorm on the space's target, and what the contest's server would say by its submissions."""
    found: list[dict[str, Any]] = [{} for _ in looked.feasible]
    if spec.foretold is not None and original is not None:
        device = device_of(spec.foretold)
        speeds = {one: predict(one, original, CONTEST, device).speed_norm for one in set(looked.models)}
        for one, model in zip(found, looked.models, strict=True):
            one["speed_norm"] = speeds[model]
    if spec.submissions is not None:
        shape = read_shape(folder)
        rows = [as_submission(recipe, shape) for recipe in looked.feasible]
        kinds = list(dict.fromkeys(rows))
        told = dict(zip(kinds, learned(Path(spec.submissions)).forecasts(kinds), strict=True))
        for one, row in zip(found, rows, strict=True):
            one["server"] = told[row].model_dump()
    return {name: one for name, one in zip(looked.names, found, strict=True) if one}


def sizes(looked: Looked, original: Description | None) -> dict[str, Any]:
    """Estimated bytes of the weights, nothing where the base is not known.

    What an exact trim leaves of a vocabulary is known only when it was done.
    """
    if original is None:
        return {}
    found = [(round(model.stored_bytes), name) for model, name in zip(looked.models, looked.names, strict=True)]
    if not found:
        return {"base": round(original.stored_bytes)}
    ends = {"smallest": min(found), "largest": max(found)}
    return {
        "base": round(original.stored_bytes),
        "median": round(median(number for number, _ in found)),
        **{end: {"recipe": name, "bytes": number} for end, (number, name) in ends.items()},
    }
