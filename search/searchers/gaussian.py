"""A Gaussian process over recipes: tries next what may beat the best by most in a second of a device.

Expected improvement (Jones et al., 1998) per second (Snoek et al., 2012) on an additive kernel
(`search.searchers.kernel`), seconds being learned as scores are. Every rung that a recipe reached is an
observation of its own: low rungs are noisier, and may be off by an amount that all share and by one of the recipe's
steps, which is how what they say is told from a final score. Recipes under way count as if they had come out as
expected, so that workers side by side try different ones. The numbers below were chosen by replays of the recorded
table (docs/measurements.md), which tell none of their neighbours apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import norm

from search.draws import Chance
from search.forms import is_bounded, recipes_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.evolution import Evolution
from search.searchers.kernel import Places
from search.searchers.proposer import Proposer, always
from search.space import Space

STARTUP = 5  # recipes by chance, seeds among them, before the model speaks
LISTED = 2000  # recipes of a space that are all weighed; of a larger one as many as are drawn
OBSERVED = 600  # observations that are weighed, highest rungs first: their square is reckoned with at every draw
DRAWN, CHILDREN = 300, 100  # of a larger space, by chance and from the best
WORST = 2.0  # how far below the middle a score counts, in what the best lies above it: how bad a failure is says little
LEAST = 0.01  # standard deviation of the scores seen, at least
CONSTANT = 9.0  # variance of what all recipes share; this and all below in units of the scores' variance
OFF = 1.0  # of what a low rung is off by for all recipes
OFF_STEPS = 0.1  # of what it is off by for what steps do
NOISE = 0.1  # of a full measurement
LOW_NOISE = 0.5  # of one at a low rung


class Gaussian(Proposer):
    """Begins by chance; then every recipe of a small space is weighed, of a large one those drawn for it."""

    def __init__(self, space: Space, seed: int = 0, feasible: Callable[[Recipe], bool] = always) -> None:
        super().__init__(space, seed, feasible)
        self.places = Places(space)
        self.last = len(space.rungs) - 1
        self.seen: dict[str, tuple[Recipe, dict[int, float]]] = {}  # score by rung
        self.took: dict[int, dict[str, tuple[Recipe, float]]] = {}  # by rung: seconds
        self.under_way: dict[str, Recipe] = {}
        self.refused: set[str] = set()
        self.near = Evolution(space, seed, feasible)
        self.wide = Chance(seed + 2)
        self._all: list[Recipe] | None = None

    def begin(self, recipe: Recipe) -> None:
        self.under_way[recipe.hash] = recipe

    def refuse(self, recipe: Recipe) -> None:
        self.refused.add(recipe.hash)

    def see(self, recipe: Recipe, outcome: Outcome) -> None:
        if outcome.score is not None:
            self.seen.setdefault(recipe.hash, (recipe, {}))[1][outcome.rung] = outcome.score
        if outcome.seconds:
            self.took.setdefault(outcome.rung, {})[recipe.hash] = (recipe, outcome.seconds)
        self.near.see(recipe, outcome)

    def learn(self, recipe: Recipe, outcome: Outcome) -> None:
        self.under_way.pop(recipe.hash, None)
        if outcome.status in {"finished", "stopped"}:
            self.see(recipe, outcome)
        else:
            self.seen.pop(recipe.hash, None)  # seen at a rung, then broken at the next
            self.near.learn(recipe, outcome)

    def draw(self) -> Recipe | None:
        if len(self.seen) < STARTUP:
            return self.space.sample(self.chance)
        left_out = self.tried | self.refused
        candidates = [one for one in self._candidates() if one.hash not in left_out]
        if not candidates:
            return None
        worth = self._gain(candidates) / self._seconds(candidates)
        for number in np.argsort(-worth):
            if self.is_new(candidates[number]):
                return candidates[number]
            self.refused.add(candidates[number].hash)
        return None

    def _candidates(self) -> Sequence[Recipe]:
        if self._all is None:
            listed = list(islice(recipes_of(self.space), LISTED + 1)) if is_bounded(self.space) else []
            self._all = listed if len(listed) <= LISTED else []
        if self._all:
            return self._all
        drawn = [self.space.sample(self.wide) for _ in range(DRAWN)]
        drawn += [self.near.draw() for _ in range(CHILDREN)]
        return list({one.hash: one for one in drawn}.values())

    def _seconds(self, candidates: Sequence[Recipe]) -> np.ndarray:
        """What each would take on all the rungs that some recipe reached; alike for all where nobody told."""
        points, total = self.places.of(candidates), np.zeros(len(candidates))
        for rung in self.took:
            told = dict(list(self.took[rung].items())[-OBSERVED:])
            logs = np.log([seconds for _, seconds in told.values()])
            spread = max(float(logs.std()), LEAST)
            places = self.places.of([recipe for recipe, _ in told.values()])
            at_last = np.full(len(told), self.last)
            model = Posterior(self.places, places, at_last, (logs - logs.mean()) / spread, self.last)
            total += np.exp(model.at(points)[0] * spread + logs.mean())
        return total if total.any() else np.ones(len(candidates))

    def _gain(self, candidates: Sequence[Recipe]) -> np.ndarray:
        """Expected improvement of each over the best, in units of the scores' spread."""
        rows = [
            (recipe, rung, score)
            for back in range(self.last + 1)
            for recipe, scores in self.seen.values()
            for rung, score in sorted(scores.items(), reverse=True)[back : back + 1]
        ][:OBSERVED]
        recipes = [recipe for recipe, _, _ in rows]
        points, rungs = self.places.of(recipes), np.array([rung for _, rung, _ in rows])
        scores = np.array([score for _, _, score in rows])
        middle = float(np.median(scores))
        scores = np.maximum(scores, middle - WORST * (scores.max() - middle)) - self._foreseen(recipes)
        middle, spread = float(np.median(scores)), max(float(scores.std()), LEAST)
        waiting = self.places.of(list(self.under_way.values()))
        model = Posterior(self.places, points, rungs, (scores - middle) / spread, self.last)
        best = float((model.at(points)[0] + self._foreseen(recipes) / spread).max())
        if len(waiting):  # as if they had come out as expected: only what is unknown shrinks
            expected, _ = model.at(waiting)
            model = Posterior(
                self.places, np.vstack([points, waiting]), np.append(rungs, np.full(len(waiting), self.last)),
                np.append((scores - middle) / spread, expected), self.last,
            )  # fmt: skip
        mean, deviation = model.at(self.places.of(candidates))
        return improvement(mean + self._foreseen(candidates) / spread, deviation, best)

    def _foreseen(self, recipes: Sequence[Recipe]) -> np.ndarray:
        """What is known before: only how far scores are from it is learned."""
        return np.array([self.outlook(one) if self.outlook is not None else 0.0 for one in recipes])


def improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """By how much what is normal with this mean and standard deviation lies above `best`, as expected."""
    z = (mean - best) / deviation
    gain: np.ndarray = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return gain


class Posterior:
    """What scores in full are expected, after `scores` were seen at `points` and `rungs`."""

    def __init__(self, places: Places, points: np.ndarray, rungs: np.ndarray, scores: np.ndarray, last: int) -> None:
        self.places, self.points = places, points
        low = (rungs < last).astype(float)
        alike = places.alike(points, points)
        both_low = np.outer(low, low)
        covariance = CONSTANT + alike + both_low * (rungs[:, None] == rungs) * OFF + both_low * OFF_STEPS * alike
        covariance[np.diag_indices_from(covariance)] += np.where(low > 0, LOW_NOISE, NOISE)
        self.root = cholesky(covariance, lower=True)
        self.weights = cho_solve((self.root, True), scores)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of final scores."""
        shared = CONSTANT + self.places.alike(points, self.points)
        known = solve_triangular(self.root, shared.T, lower=True)
        most = CONSTANT + self.places.alike(points[:1], points[:1])[0, 0]
        variance = np.maximum(most - (known**2).sum(axis=0), 1e-9)
        return shared @ self.weights, np.sqrt(variance)
