"""An Optuna study as a searcher: recipes are its trials, whoever proposed them. Knows no sampler."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from search.recipe import Recipe
from search.searchers.proposer import Outcome, Proposer, always
from search.space import Space

INFEASIBLE = "infeasible"  # constraint of a trial: above 0 where nobody can build the recipe


class ByStudy(Proposer):
    """Draws with `study`; a subclass says what a trial's values are."""

    def __init__(
        self, space: Space, study: optuna.Study, seed: int = 0, feasible: Callable[[Recipe], bool] = always
    ) -> None:
        super().__init__(space, seed, feasible)
        self.study = study
        self.drawn: dict[str, optuna.trial.Trial] = {}  # not yet begun or refused
        self.asked: dict[str, optuna.trial.Trial] = {}

    def draw(self) -> Recipe | None:
        trial = self.study.ask()
        recipe = self.space.sample(trial)
        self.drawn[recipe.hash] = trial
        return recipe

    def refuse(self, recipe: Recipe) -> None:
        trial = self.drawn.pop(recipe.hash)
        if self.feasible(recipe):  # a repeat teaches nothing
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._tell_infeasible(trial)

    def begin(self, recipe: Recipe) -> None:
        if recipe.hash not in self.drawn:  # another's proposal, a seed, or of an earlier sitting
            self.study.enqueue_trial(self.space.params_of(recipe))
            self.draw()
        self.asked[recipe.hash] = self.drawn.pop(recipe.hash)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        trial = self.asked.pop(recipe.hash, None)
        if trial is None:  # told before
            return
        if outcome.status == INFEASIBLE:
            self._tell_infeasible(trial)
        elif outcome.status == "failed" or outcome.score is None:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_constraint(INFEASIBLE, 0.0)
            self.tell_study(trial, outcome)

    def tell_study(self, trial: optuna.trial.Trial, outcome: Outcome) -> None:
        """How a recipe that was measured ended."""
        raise NotImplementedError

    def _tell_infeasible(self, trial: optuna.trial.Trial) -> None:
        trial.set_constraint(INFEASIBLE, 1.0)
        self.study.tell(trial, [0.0] * len(self.study.directions))
