"""What every searcher is: it proposes recipes, each once, and is told how they ended.

A searcher adds two things to `Proposer`: how it draws, and what it learns. Seeds (those of the space, and what trials
advise), repeats, what cannot be built and the end of a space are settled here, alike for all. Knows nothing of Ray, so
that a searcher can be replayed and tested.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from search.advice import advised
from search.draws import Chance
from search.forms import recipes_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.space import Space

DRAWS = 20  # by chance near what is good, where a searcher's own draws repeat
CHANCE_DRAWS = 300  # by chance that may repeat before the space is gone through from its beginning
LISTED = 20_000  # recipes gone through before it counts as used up


def always(_recipe: Recipe) -> bool:
    """Every recipe is worth a trial."""
    return True


class Foresees(Protocol):
    """What is known of a recipe before it is built, as `search.prospects` does."""

    def ceiling(self, recipe: Recipe) -> float: ...
    def outlook(self, recipe: Recipe) -> float: ...


class Proposer(ABC):
    """Proposes recipes of a space.

    Recipes that are not `feasible` are not proposed, unless as seeds: who names one is told why it is refused. Those
    that aim at the score leave out as well what could not win: a `ceiling`, where one is given, below the best score.
    Who models scores begins with the `outlook`, where one is given: the score that a recipe would have at its speed.
    """

    draws = 20  # of its own that may repeat before chance takes over
    wanders = True  # draws by chance when its own draws repeat
    aims_at_score = True
    ceiling: Callable[[Recipe], float] | None = None
    outlook: Callable[[Recipe], float] | None = None

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        self.space = space
        self.feasible = feasible
        self.seeds = list(space.seed_recipes())
        self.advised: set[str] = set()  # forms of steps that some trial spoke for
        self.tried: set[str] = {Recipe([]).hash}  # the base is measured beside every candidate: no trial for it
        self.chance = Chance(seed)
        self.full: dict[str, float] = {}  # scores of those measured in full

    def foresee(self, prospects: Foresees | None) -> None:
        """Take into account what can be told before anything is built; None: nothing can."""
        if prospects is not None:
            self.ceiling, self.outlook = prospects.ceiling, prospects.outlook

    @abstractmethod
    def draw(self) -> Recipe | None:
        """A recipe as this searcher sees fit, which may be a repeat; None when it has no more to say."""

    @abstractmethod
    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        """How a recipe ended, whoever proposed it."""

    def see(self, recipe: Recipe, outcome: Outcome) -> None:  # noqa: B027 - not everyone learns on the way
        """How far a recipe came, or what its full measurement is worth by now. The last `see` or `learn` counts."""

    def refuse(self, recipe: Recipe) -> None:  # noqa: B027 - most have nothing to do
        """`recipe`, drawn here, is not tried: a repeat, or what nobody can build."""

    def begin(self, recipe: Recipe) -> None:  # noqa: B027 - most have nothing to do
        """`recipe` is being tried, whoever proposed it."""

    def propose(self) -> Recipe | None:
        """A recipe not tried before, or None when none is left."""
        while self.seeds:
            seed = self.seeds.pop(0)
            if seed.hash not in self.tried:
                return self.note(seed)
        for _ in range(self.draws):
            recipe = self.draw()
            if recipe is None:
                break
            if self.is_new(recipe):
                return self.note(recipe)
            self.refuse(recipe)
        # It is sure of what it has seen: spend the trial elsewhere.
        for number in range(CHANCE_DRAWS if self.wanders else 0):
            recipe = self.wander() if number < DRAWS else self.space.sample(self.chance)
            if self.is_new(recipe):
                return self.note(recipe)
        # What only a rare chain of choices gives, chance may miss.
        left = (recipe for recipe in itertools.islice(recipes_of(self.space), LISTED) if self.is_new(recipe))
        recipe = next(left, None) if self.wanders else None
        return self.note(recipe) if recipe is not None else None

    def wander(self) -> Recipe:
        """A draw where its own repeat."""
        return self.space.sample(self.chance)

    def note(self, recipe: Recipe) -> Recipe:
        """`recipe` is being tried, and will not be proposed again."""
        self.tried.add(recipe.hash)
        self.begin(recipe)
        return recipe

    def tell(self, recipe: Recipe, outcome: Outcome) -> None:
        """How a recipe ended, which may be of an earlier sitting. A failure says nothing of the recipe."""
        if recipe.hash not in self.tried:
            self.note(recipe)
        if outcome.status == "finished" and outcome.score is not None:
            self.full[recipe.hash] = outcome.score
        self.learn(recipe, outcome)
        self._heed(recipe, outcome)

    def correct(self, recipe: Recipe, outcome: Outcome) -> None:
        """What is known by now of a recipe that was measured in full and told."""
        if outcome.score is not None and self.full.get(recipe.hash) != outcome.score:
            self.full[recipe.hash] = outcome.score
            self.see(recipe, outcome)

    @property
    def best(self) -> float:
        """Of the scores measured in full."""
        return max(self.full.values(), default=0.0)

    def _heed(self, recipe: Recipe, outcome: Outcome) -> None:
        """Try next what a recipe advises that came to the end: each form of a step once, feasible ones only."""
        if outcome.status != "finished":
            return
        for step, seed in advised(self.space, recipe, outcome.advice):
            if step in self.advised:
                continue
            if self.is_new(seed):
                self.seeds.append(seed)
            elif seed.hash not in self.tried:
                continue  # nobody can build it: another recipe may advise what can be built
            self.advised.add(step)

    def is_new(self, recipe: Recipe) -> bool:
        return recipe.hash not in self.tried and self.feasible(recipe) and self.may_win(recipe)

    def may_win(self, recipe: Recipe) -> bool:
        return not self.aims_at_score or self.ceiling is None or self.ceiling(recipe) > self.best
