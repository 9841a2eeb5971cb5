"""Recipes by chance: what every other searcher is compared with."""

from __future__ import annotations

from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.proposer import Proposer


class ByChance(Proposer):
    """Each field is drawn evenly, whatever was seen."""

    aims_at_score = False

    def draw(self) -> Recipe | None:
        return self.space.sample(self.chance)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        """Nothing."""
