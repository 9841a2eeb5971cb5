"""NSGA-II (Deb et al., 2002) for quality, speed and size at once: a front to choose from instead of one best."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import Trial, TrialState

from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.proposer import Proposer, always
from search.space import Space

POPULATION = 12  # a search has tens of trials: with Optuna's 50 there would be one generation
INFEASIBLE = "infeasible"  # a constraint, violated above 0: nobody can build the recipe


class Nsga2(Proposer):
    """PerfNorm and SpeedNorm high, bytes low. What was stopped on the way has no final figures, and is no parent.

    Optuna counts generations in its own trials, so one study goes through the whole search.
    """

    aims_at_score = False

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        self.study = optuna.create_study(directions=["maximize", "maximize", "minimize"], sampler=sampler)
        self.drawn: dict[str, Trial] = {}  # not yet begun or refused
        self.asked: dict[str, Trial] = {}

    def draw(self) -> Recipe | None:
        trial = self.study.ask()
        recipe = self.space.sample(trial)
        self.drawn[recipe.hash] = trial
        return recipe

    def refuse(self, recipe: Recipe) -> None:
        trial = self.drawn.pop(recipe.hash)
        if self.feasible(recipe):  # a repeat teaches nothing
            self.study.tell(trial, state=TrialState.FAIL)
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
        values = (outcome.perf_norm, outcome.speed_norm, outcome.size_bytes)
        if outcome.status == "infeasible":
            self._tell_infeasible(trial)
        elif outcome.status != "finished" or None in values:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_constraint(INFEASIBLE, 0.0)
            self.study.tell(trial, [float(value) for value in values if value is not None])

    def _tell_infeasible(self, trial: Trial) -> None:
        trial.set_constraint(INFEASIBLE, 1.0)
        self.study.tell(trial, [0.0] * len(self.study.directions))
