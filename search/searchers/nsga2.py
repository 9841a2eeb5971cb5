"""NSGA-II (Deb et al., 2002) for quality, speed and size at once: a front to choose from instead of one best."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from search.recipe import Recipe
from search.searchers.by_study import ByStudy
from search.searchers.proposer import Outcome, always
from search.space import Space

POPULATION = 12  # a search has tens of trials: with Optuna's 50 there would be one generation


class Nsga2(ByStudy):
    """PerfNorm and SpeedNorm high, bytes low. What was stopped on the way has no final figures, and is no parent."""

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        study = optuna.create_study(directions=["maximize", "maximize", "minimize"], sampler=sampler)
        super().__init__(space, study, seed, feasible)

    def tell_study(self, trial: optuna.trial.Trial, outcome: Outcome) -> None:
        values = (outcome.perf_norm, outcome.speed_norm, outcome.size_bytes)
        if outcome.status == "stopped" or None in values:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, [float(value) for value in values if value is not None])
