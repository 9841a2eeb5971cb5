"""Which recipe to try next: Optuna's TPE over a space, known-good recipes first, no recipe twice.

Knows this of rungs: a score from a lower one is told as such, never as final.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher

from search.ledger import FAILED, RUNNING, STOPPED, TrialRecord
from search.recipe import Recipe
from search.space import Space

MODEL_DRAWS = 20  # draws of the model that may repeat before chance takes over
CHANCE_DRAWS = 1000  # draws by chance that may repeat before the space counts as used up


def always(_recipe: Recipe) -> bool:
    """Every recipe is worth a trial."""
    return True


class RecipeSampler:
    """Proposes recipes and learns from their scores; without Ray, so that it can be replayed and tested.

    Recipes that are not `feasible` are not proposed, unless as seeds: who names one is told why it is refused.
    """

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is; we mean it
            # Multivariate: what quantization costs depends on what was pruned. Grouped: so are conditional fields.
            sampler = optuna.samplers.TPESampler(
                multivariate=True, group=True, n_startup_trials=6, seed=seed, constant_liar=True
            )
        self.space = space
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        self.seeds = list(space.seed_recipes())
        self.asked: dict[str, optuna.trial.Trial] = {}
        self.feasible = feasible
        self.tried: set[str] = {Recipe([]).hash}  # the base is measured beside every candidate: no trial for it

    def propose(self) -> Recipe | None:
        """A recipe not tried before, or None when none is left."""
        while self.seeds:
            seed = self.seeds.pop(0)
            if seed.hash not in self.tried:
                return self._enqueue(seed)
        for _ in range(MODEL_DRAWS):
            recipe, draw = self._ask()
            if self._is_new(recipe):
                return self._note(recipe, draw)
            # A repeat, or what nobody can build, teaches nothing: leave it out of the study.
            self.study.tell(draw, state=optuna.trial.TrialState.FAIL)
        # The model is sure of what it has seen: spend the trial elsewhere.
        for _ in range(CHANCE_DRAWS):
            recipe = self.space.sample(self.chance.ask())
            if self._is_new(recipe):
                return self._enqueue(recipe)
        return None

    def _is_new(self, recipe: Recipe) -> bool:
        return recipe.hash not in self.tried and self.feasible(recipe)

    def tell(self, recipe: Recipe, score: float | None, stopped_at: int | None = None) -> None:
        """The score with which a recipe ended; None when it failed, which says nothing of the recipe.

        `stopped_at` is the rung of a score that is not final: TPE ranks such trials below those that went further.
        """
        self.tried.add(recipe.hash)
        draw = self.asked.pop(recipe.hash, None)
        if draw is None:  # from an earlier sitting
            self._enqueue(recipe)
            draw = self.asked.pop(recipe.hash)
        if score is None:
            self.study.tell(draw, state=optuna.trial.TrialState.FAIL)
        elif stopped_at is not None:
            draw.report(score, step=stopped_at)
            self.study.tell(draw, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(draw, score)

    def _ask(self) -> tuple[Recipe, optuna.trial.Trial]:
        draw = self.study.ask()
        return self.space.sample(draw), draw

    def _enqueue(self, recipe: Recipe) -> Recipe:
        """Make `recipe` the study's next trial."""
        self.study.enqueue_trial(self.space.params_of(recipe))
        return self._note(*self._ask())

    def _note(self, recipe: Recipe, draw: optuna.trial.Trial) -> Recipe:
        self.tried.add(recipe.hash)
        self.asked[recipe.hash] = draw
        return recipe


class RecipeSearcher(Searcher):
    """RecipeSampler as Ray Tune's searcher. Trials are named t000, t001, ... across sittings."""

    def __init__(self, sampler: RecipeSampler, budget: int, history: Sequence[TrialRecord] = ()) -> None:
        super().__init__(metric="score", mode="max")
        self.sampler = sampler
        self.budget = budget
        self.running: dict[str, Recipe] = {}
        self.unfinished: list[tuple[str, Recipe]] = []
        self.begun = len(history)  # trials of all sittings; a killed driver may have left a gap in their names
        self.number = 0
        self.exhausted = False  # nothing more to propose: the budget is spent, or the space used up
        for record in history:
            recipe = Recipe.of(record.recipe)
            self.number = max(self.number, int(record.name[1:]) + 1)
            if record.end is None:
                self.unfinished.append((record.name, recipe))
                self.sampler.tried.add(recipe.hash)
            elif record.status == STOPPED and record.last is not None:
                self.sampler.tell(recipe, float(record.last["score"]), stopped_at=record.last["rung"])
            else:
                self.sampler.tell(recipe, final_score(record))

    def suggest(self, trial_id: str) -> Any:
        if self.unfinished:
            name, recipe = self.unfinished.pop(0)
        else:
            proposed = self.sampler.propose() if self.begun < self.budget else None
            if proposed is None:
                self.exhausted = True
                return Searcher.FINISHED
            name, recipe = f"t{self.number:03d}", proposed
            self.number += 1
            self.begun += 1
        self.running[trial_id] = recipe
        return {"name": name, "recipe": recipe.to_list()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        recipe = self.running.pop(trial_id, None)
        if recipe is None:
            return
        if error or result is None or result["status"] == FAILED:
            self.sampler.tell(recipe, None)
        else:
            stopped_at = result["rung"] if result["status"] == RUNNING else None
            self.sampler.tell(recipe, float(result["score"]), stopped_at)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search rebuilds its searcher from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


def final_score(record: TrialRecord) -> float | None:
    """What is learned from a trial that came to its end: its score, 0 when infeasible, None when it failed."""
    if record.status == FAILED:
        return None
    return float(record.last["score"]) if record.last is not None else 0.0
