"""Evolution over recipes: a good one with one level of one step changed (after EvoPress, Sieberling et al., 2024).

EvoPress keeps one parent and switches levels between layers at a constant size; here recipes are as large as they are,
and parents are the best few, since a recipe's first score is noisy. Selection by rungs is the scheduler's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from search.draws import Chance
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.proposer import Proposer, always
from search.space import Space

PARENTS = 5  # the best of all that were seen
STARTUP = 4  # recipes by chance, seeds among them, before there are children
SECOND = 0.3  # chance of one more change, and of another after it
STEP = 0.2  # of a range's width that a change moves a number by, at most


class Evolution(Proposer):
    """Children of the best recipes. One that was stopped earlier ranks below all that went further."""

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        self.random = random.Random(seed + 1)
        self.ends: dict[str, tuple[Recipe, tuple[int, float]]] = {}

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        self.ends.pop(recipe.hash, None)  # seen at a rung, then broken at the next: no parent
        if outcome.score is not None and outcome.status in {"finished", "stopped"}:
            self.ends[recipe.hash] = (recipe, (outcome.rung, outcome.score))

    def see(self, recipe: Recipe, outcome: Outcome) -> None:
        self.learn(recipe, outcome)

    def draw(self) -> Recipe:
        if len(self.ends) < STARTUP:
            return self.space.sample(self.chance)
        best = sorted(self.ends.values(), key=lambda one: one[1], reverse=True)[:PARENTS]
        return self.child_of(self.random.choice(best)[0])

    def wander(self) -> Recipe:
        return self.draw()

    def child_of(self, parent: Recipe) -> Recipe:
        """`parent` with one level changed, or a few."""
        child = self._changed(parent)
        while self.random.random() < SECOND:
            child = self._changed(child)
        return child

    def _changed(self, recipe: Recipe) -> Recipe:
        params = self.space.params_of(recipe)
        name = self.random.choice(sorted(params))
        return self.space.sample(Mutation(params, name, self.random))


class Mutation:
    """Repeats a recipe's draws but for one; what that one opens up is drawn by chance."""

    def __init__(self, params: dict[str, Any], name: str, rng: random.Random) -> None:
        self.params = params
        self.name = name
        self.random = rng
        self.fresh = Chance(rng.randrange(2**32))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        listed = list(choices)
        if name not in self.params or self.params[name] not in listed:
            return self.fresh.suggest_categorical(name, listed)
        if name != self.name or len(listed) == 1:
            return self.params[name]
        at = listed.index(self.params[name])
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):  # levels have an order
            return listed[self.random.choice([one for one in (at - 1, at + 1) if 0 <= one < len(listed)])]
        return self.random.choice(listed[:at] + listed[at + 1 :])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if name not in self.params:
            return self.fresh.suggest_int(name, low, high, step=step, log=log)
        if name != self.name:
            return int(self.params[name])
        levels = range(low, high + 1, step)
        reach = max(1, round(len(levels) * STEP))
        at = levels.index(int(self.params[name])) + self.random.choice([-1, 1]) * self.random.randint(1, reach)
        return levels[min(max(at, 0), len(levels) - 1)]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if name not in self.params:
            return self.fresh.suggest_float(name, low, high, log=log)
        if name != self.name:
            return float(self.params[name])
        move = self.random.uniform(-STEP, STEP)
        moved = self.params[name] * (high / low) ** move if log else self.params[name] + (high - low) * move
        return min(max(float(moved), low), high)
