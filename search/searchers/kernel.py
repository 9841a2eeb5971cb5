"""How alike recipes are, for a Gaussian process over them: what steps do adds up, alone and in pairs.

After the additive Gaussian processes of Duvenaud et al., 2011. Most of what a step does to a score it does whatever
else is in the recipe, so few trials tell of many recipes. Knows nothing of scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.knobs import Knob
from search.recipe import Recipe
from search.space import LANE, Space

REACH = 0.7  # of a whole range, or of another choice: how far what is known of one place tells of others
ALONE, PAIRS, WHOLE = 1.0, 1.0, 0.1  # variance of what steps do alone, in pairs, and only all together


class Places:
    """Recipes of `space` as points: for every step some coordinates, each from 0 to 1."""

    def __init__(self, space: Space) -> None:
        self.space = space
        drawn = [] if space.lanes else [knob for knob in space.knobs if knob.drawn]
        self.steps = [[one for one in drawn if one.step == step] for step in sorted({one.step for one in drawn})]
        widths = [sum(_width(knob) for knob in knobs) for knobs in self.steps] or [len(space.lanes)]
        ends = [sum(widths[:number]) for number in range(len(widths) + 1)]
        self.parts = [slice(low, high) for low, high in itertools.pairwise(ends)]
        self._known: dict[str, np.ndarray] = {}

    def of(self, recipes: Sequence[Recipe]) -> np.ndarray:
        """Shape (recipes, coordinates)."""
        points = [self._of(recipe) for recipe in recipes]
        return np.array(points, dtype=np.float64).reshape(len(points), self.parts[-1].stop)

    def _of(self, recipe: Recipe) -> np.ndarray:
        if recipe.hash not in self._known:
            params = self.space.params_of(recipe)
            if self.space.lanes:
                point = [float(number == params[LANE]) for number in range(len(self.space.lanes))]
            else:
                point = [one for knobs in self.steps for knob in knobs for one in _coordinates(knob, params)]
            self._known[recipe.hash] = np.array(point)
        return self._known[recipe.hash]

    def alike(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Covariance of what the steps of recipes at these points do: shape (some, others)."""
        alone, squares = (np.zeros((len(some), len(others))) for _ in range(2))
        whole = np.ones_like(alone)
        for part in self.parts:
            one = _near(some[:, part], others[:, part])
            alone += one
            whole *= one
            squares += one**2
        count = len(self.parts)
        most = max(1, count * (count - 1) // 2)
        alike: np.ndarray = ALONE / count * alone + PAIRS / most * (alone**2 - squares) / 2 + WHOLE * whole
        return alike


def _near(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """From 1 for the same place down to 0: a Gaussian of the distance."""
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    near: np.ndarray = np.exp(-np.maximum(squares, 0.0) / (2 * REACH**2))
    return near


def _coordinates(knob: Knob, params: dict[str, Any]) -> list[float]:
    """A number by its rank or its share of a range, a choice by a coordinate of its own; between, what is not there."""
    there = knob.name in params
    if knob.field is None:
        return [float(there and params[knob.name])]
    if knob.range is not None:
        return [knob.range.share_of(params[knob.name]) if there else 0.5]
    if not _in_order(knob):
        return [math.sqrt(0.5) * (there and one == params[knob.name]) for one in knob.options]
    if len(knob.options) == 1:
        return [0.5]
    ranked = sorted(knob.options)
    return [ranked.index(params[knob.name]) / (len(ranked) - 1) if there else 0.5]


def _width(knob: Knob) -> int:
    return 1 if knob.field is None or knob.range is not None or _in_order(knob) else len(knob.options)


def _in_order(knob: Knob) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in knob.options)
