"""Several searchers in turn, each learning from what all found: what one is blind to, another tries."""

from __future__ import annotations

from collections.abc import Callable

from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.evolution import Evolution
from search.searchers.proposer import Proposer, always
from search.searchers.tpe import Tpe
from search.space import Space


class Mixed(Proposer):
    """Evolution, which goes on from the best, and TPE, which looks at everything; one after the other."""

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        self.members: tuple[Proposer, ...] = (Evolution(space, seed, feasible), Tpe(space, seed, feasible))
        self.turn = 0

    def draw(self) -> Recipe | None:
        member = self.members[self.turn % len(self.members)]
        recipe = member.draw()
        if recipe is not None and not self.is_new(recipe):
            member.refuse(recipe)
            self.turn += 1
        return recipe

    def wander(self) -> Recipe:
        return self.members[0].wander()

    def begin(self, recipe: Recipe) -> None:
        self.turn += 1
        for member in self.members:
            member.note(recipe)

    def see(self, recipe: Recipe, outcome: Outcome) -> None:
        for member in self.members:
            member.see(recipe, outcome)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        for member in self.members:
            member.tell(recipe, outcome)
