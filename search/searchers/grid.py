"""Every recipe of a space in turn, as the file lists them; of a range that is not `listed` its two ends alone."""

from __future__ import annotations

from collections.abc import Callable

from search.forms import recipes_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.proposer import Proposer, always
from search.space import Space


class InOrder(Proposer):
    """The space from its first recipe to its last; nothing is drawn by chance."""

    wanders = False
    aims_at_score = False

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        self.left = recipes_of(space)

    def draw(self) -> Recipe | None:
        return next((recipe for recipe in self.left if self.is_new(recipe)), None)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        """Nothing."""
