"""Optuna's tree-structured Parzen estimator over recipes.

Bergstra et al., 2011; multivariate as in Falkner et al., 2018 (BOHB).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.evolution import Evolution
from search.searchers.proposer import Proposer, always
from search.space import Space

STARTUP = 6  # recipes by chance, seeds among them, before the model speaks
INFEASIBLE = "infeasible"  # a constraint, violated above 0: nobody can build the recipe


class Known(NamedTuple):
    """A recipe as Optuna sees it, and how far it came; None while nothing is known."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    outcome: Outcome | None


class Tpe(Proposer):
    """Multivariate, since what quantization costs depends on what was pruned; recipes nobody can build constrain it.

    The study is made anew from what is known as soon as that changes, so a score of a lower rung counts from the moment
    it is there, as one that ranks below those that went further, and gives way to the next.
    """

    draws = 5  # each takes long once there are many trials, and it rarely changes its mind

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is; we mean it
            self.sampler = optuna.samplers.TPESampler(
                multivariate=True, group=True, n_startup_trials=STARTUP, seed=seed, constant_liar=True
            )
        self.known: dict[str, Known] = {}
        self.near = Evolution(space, seed, feasible)  # where the model repeats itself: next to the best
        self._study: optuna.Study | None = None  # of what is known; its own draws since then count as under way

    def study(self) -> optuna.Study:
        """What is known, as Optuna's."""
        if self._study is None:
            self._study = optuna.create_study(direction="maximize", sampler=self.sampler)
            self._study.add_trials([one for one in map(_as_trial, self.known.values()) if one is not None])
        return self._study

    def draw(self) -> Recipe | None:
        return self.space.sample(self.study().ask())

    def refuse(self, recipe: Recipe) -> None:
        if not self.feasible(recipe):
            self._keep(recipe, Outcome(status="infeasible"))

    def wander(self) -> Recipe:
        return self.near.draw()

    def begin(self, recipe: Recipe) -> None:
        self._keep(recipe, None)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        self._keep(recipe, outcome)
        self.near.learn(recipe, outcome)

    def see(self, recipe: Recipe, outcome: Outcome) -> None:
        self._keep(recipe, outcome)
        self.near.see(recipe, outcome)

    def _keep(self, recipe: Recipe, outcome: Outcome | None) -> None:
        self._study = None
        params = Recorded(self.space.params_of(recipe))
        self.space.sample(params)
        self.known[recipe.hash] = Known(params.asked, params.distributions, outcome)


class Recorded:
    """Repeats a recipe's draws, and keeps what they were drawn from."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.asked: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._keep(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._keep(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._keep(name, FloatDistribution(low, high, log=log)))

    def _keep(self, name: str, distribution: BaseDistribution) -> Any:
        self.distributions[name] = distribution
        self.asked[name] = self.params[name]
        return self.params[name]


def _as_trial(one: Known) -> FrozenTrial | None:
    """One recipe of the study; none where it failed, which says nothing of it."""
    outcome = one.outcome
    told: dict[str, Any] = {"params": one.params, "distributions": one.distributions}
    if outcome is None:
        return optuna.trial.create_trial(state=TrialState.RUNNING, **told)
    told["constraints"] = {INFEASIBLE: float(outcome.status == "infeasible")}
    if outcome.status == "infeasible":
        return optuna.trial.create_trial(value=0.0, **told)
    if outcome.status == "failed" or outcome.score is None:
        return None
    if outcome.status == "stopped":
        steps = {outcome.rung: outcome.score}
        return optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values=steps, **told)
    return optuna.trial.create_trial(value=outcome.score, **told)
