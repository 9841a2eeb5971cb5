"""What a search teaches: its front, its bests, which choice mattered, what to try next. Reads records alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from search.errors import BadInput
from search.export import PICKS, pick
from search.ledger import TrialRecord, ranked
from search.recipe import Recipe
from search.space import Space

if TYPE_CHECKING:
    from search.retold import Value
    from search.searchers.proposer import Foresees

ENOUGH = 8  # recipes at a rung before anything is said of what mattered
LEVELS = 6  # of a number, when what mattered is asked: more are gathered in as many groups
AIMS: tuple[tuple[str, int], ...] = (("perf_norm", 1), ("speed_norm", 1), ("size_bytes", -1))


class Mattered(NamedTuple):
    """Shares of the scores' variance by choice, at the rung they were read at; `trials` are those it was read from."""

    rung: int
    trials: int
    shares: dict[str, float]


def front(trials: Sequence[TrialRecord], last_rung: int) -> list[TrialRecord]:
    """Of the trials measured in full those that no other beats in quality, speed and size at once; the best first."""
    full = ranked(trials, last_rung)
    return [one for one in full if not any(_beats(other.line, one.line) for other in full)]


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    differences = [sign * (one[aim] - other[aim]) for aim, sign in AIMS]
    return min(differences) >= 0 and max(differences) > 0


def bests(trials: Sequence[TrialRecord], last_rung: int) -> dict[str, TrialRecord]:
    """The best by score, quality, size and speed, as `squeeze export --pick` picks them; none before a full one."""
    full = ranked(trials, last_rung)
    return {how: pick(full, how, last_rung) for how in PICKS} if full else {}


def mattered(space: Space, trials: Sequence[TrialRecord]) -> Mattered | None:
    """Which choice explains how much of the scores: fANOVA (Hutter et al., 2014), as Optuna has it.

    Read at the highest rung that `ENOUGH` recipes came to, for scores of different rungs are not compared; None where
    none has as many, or all scored alike. A field that a recipe has not counts as a level of its own.
    """
    for rung in range(len(space.rungs) - 1, -1, -1):
        seen = [trial for trial in trials if rung in trial.rungs]
        scores = [float(trial.rungs[rung]["score"]) for trial in seen]
        if len(seen) >= ENOUGH and len(set(scores)) > 1:
            choices = [_choices(space, Recipe.of(trial.recipe)) for trial in seen]
            return Mattered(rung, len(seen), _shares(choices, scores))
    return None


def _choices(space: Space, recipe: Recipe) -> dict[str, Any]:
    """Its draws; of one the space no longer holds, its steps' names."""
    try:
        return space.params_of(recipe)
    except BadInput:
        return {step.step: True for step in recipe.steps}


def _shares(choices: Sequence[dict[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {name: _levels([one.get(name) for one in choices]) for name in sorted(set().union(*choices))}
    varying = {name: column for name, column in columns.items() if len(set(column)) > 1}
    study = optuna.create_study(direction="maximize")
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted(set(column))) for name, column in varying.items()
    }
    for number, score in enumerate(scores):
        params = {name: column[number] for name, column in varying.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _levels(values: Sequence[Any]) -> list[str]:
    """Each value as the name of its level: numbers of many levels are gathered in groups of as many each."""
    numbers = sorted({one for one in values if isinstance(one, int | float) and not isinstance(one, bool)})
    if len(numbers) <= LEVELS:
        return [str(one) for one in values]
    group = {number: f"group {at * LEVELS // len(numbers)}" for at, number in enumerate(numbers)}
    return [group.get(one, str(one)) for one in values]


def next_recipes(
    space: Space,
    trials: Sequence[TrialRecord],
    seed: int,
    feasible: Callable[[Recipe], bool],
    prospects: Foresees | None = None,
    value: Value | None = None,
    count: int = 3,
) -> list[Recipe]:
    """What the space's searcher would try next, knowing all this; `value` as `search.driver` gives it."""
    from search.retold import retell, scored
    from search.searchers import SEARCHERS

    proposer = SEARCHERS[space.searcher](space, seed, feasible)
    proposer.foresee(prospects)
    retell(proposer, trials, value or scored)
    found = [proposer.propose() for _ in range(count)]
    return [recipe for recipe in found if recipe is not None]
