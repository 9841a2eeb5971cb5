"""Optuna's tree-structured Parzen estimator over recipes.

Bergstra et al., 2011; multivariate as in Falkner et al., 2018 (BOHB).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from search.recipe import Recipe
from search.searchers.by_study import ByStudy
from search.searchers.proposer import Outcome, always
from search.space import Space

STARTUP = 6  # recipes by chance, seeds among them, before the model speaks


class Tpe(ByStudy):
    """Multivariate, since what quantization costs depends on what was pruned; recipes nobody can build constrain it.

    A score of a lower rung is told as such, which TPE ranks below those that went further.
    """

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is; we mean it
            sampler = optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                n_startup_trials=STARTUP,
                seed=seed,
                constant_liar=True,
            )
        super().__init__(space, optuna.create_study(direction="maximize", sampler=sampler), seed, feasible)

    def tell_study(self, trial: optuna.trial.Trial, outcome: Outcome) -> None:
        assert outcome.score is not None
        if outcome.status == "stopped":
            trial.report(outcome.score, step=outcome.rung)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, outcome.score)
