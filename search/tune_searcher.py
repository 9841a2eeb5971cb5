"""A searcher as Ray Tune sees one: trials named t000, t001, ... across sittings, within a budget of trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from search.ledger import FAILED, RUNNING, STOPPED, TrialRecord
from search.recipe import Recipe
from search.searchers.proposer import Outcome, Proposer


class RecipeSearcher(Searcher):
    """`proposer` as Ray Tune's searcher; what earlier sittings saw is told it first."""

    def __init__(self, proposer: Proposer, budget: int, history: Sequence[TrialRecord] = ()) -> None:
        super().__init__(metric="score", mode="max")
        self.proposer = proposer
        self.budget = budget
        self.running: dict[str, Recipe] = {}
        self.seen: dict[str, Outcome] = {}  # of running trials, how far they came
        self.unfinished: list[tuple[str, Recipe]] = []
        self.begun = len(history)  # trials of all sittings; a killed driver may have left a gap in their names
        self.number = 0
        self.exhausted = False  # nothing more to propose: the budget is spent, or the space used up
        for record in history:
            recipe = Recipe.of(record.recipe)
            self.number = max(self.number, int(record.name[1:]) + 1)
            if record.end is None:
                self.unfinished.append((record.name, recipe))
                self.proposer.note(recipe)
            else:
                self.proposer.tell(recipe, Outcome.of(record.status, record.last))

    def suggest(self, trial_id: str) -> Any:
        if self.unfinished:
            name, recipe = self.unfinished.pop(0)
        else:
            proposed = self.proposer.propose() if self.begun < self.budget else None
            if proposed is None:
                self.exhausted = True
                return Searcher.FINISHED
            name, recipe = f"t{self.number:03d}", proposed
            self.number += 1
            self.begun += 1
        self.running[trial_id] = recipe
        return {"name": name, "recipe": recipe.to_list()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.running and result["status"] == RUNNING:
            self.seen[trial_id] = ended(result)
            self.proposer.see(self.running[trial_id], self.seen[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        recipe = self.running.pop(trial_id, None)
        if recipe is None:
            return
        seen = self.seen.pop(trial_id, None)
        # Tune says no result of a trial that waited and was stopped: what was seen last is how it ended.
        if result is None and not error and seen is not None:
            self.proposer.tell(recipe, seen)
        else:
            self.proposer.tell(recipe, ended(None if error else result))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search rebuilds its searcher from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


def ended(result: dict[str, Any] | None) -> Outcome:
    """What a trial's last result says; a trial that was still running was stopped."""
    if result is None or result["status"] == FAILED:
        return Outcome(status="failed")
    line = json.loads(result["event"]) if result["event"] else None
    return Outcome.of(STOPPED if result["status"] == RUNNING else result["status"], line)
