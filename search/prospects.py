"""What a recipe could score at best, told before anything is built: the roofline's speed beside quality kept whole.

The bottom of the rungs: a recipe that could not win even so is not begun. Holds for the contest's workload on the
device that the space names as its target. Needs configs alone, no weights and no GPU. Knows nothing of what was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import Path

from evaluation.description import Description
from evaluation.devices import DeviceName
from evaluation.roofline import predict
from evaluation.score import combine
from evaluation.workload import CONTEST
from search.recipe import Recipe
from search.space import Space
from search.target import base_described, described, device_of

PERF_AT_BEST = 1.05  # of PerfNorm: recovery may leave a model a little better than its base
LENGTH = 0.1  # of SpeedNorm: who says more than the base takes less time a token


class Prospects:
    """Of recipes for the model in `base` on any of `devices`; where none is known, nothing is ruled out."""

    def __init__(self, base: Path, devices: Iterable[DeviceName]) -> None:
        self.base = base
        self.devices = [device_of(name) for name in devices]
        self.original = base_described(base) if self.devices else None
        self._known: dict[Description, tuple[float, float]] = {}

    def ceiling(self, recipe: Recipe) -> float:
        """The score on the fastest device, SpeedNorm as much above its prediction as roofline and length may put it."""
        return math.inf if self.original is None else combine(PERF_AT_BEST, self._speeds(recipe)[1] + LENGTH)

    def outlook(self, recipe: Recipe) -> float:
        """The score on the fastest device as the roofline predicts it, with quality kept whole."""
        return 0.0 if self.original is None else combine(1.0, self._speeds(recipe)[0])

    def _speeds(self, recipe: Recipe) -> tuple[float, float]:
        """SpeedNorm on the fastest device, as predicted and as it may be at most. To be asked where one is known."""
        assert self.original is not None
        model = described(recipe, self.base)
        if model not in self._known:
            found = [(predict(model, self.original, CONTEST, one).speed_norm, one.error) for one in self.devices]
            self._known[model] = max(speed for speed, _ in found), max(speed + error for speed, error in found)
        return self._known[model]


def prospects_for(space: Space, base: Path, at_hand: Collection[str | None]) -> Prospects | None:
    """Of the space's recipes where all devices `at_hand` are its target, of which alone the roofline is to be held."""
    if space.foretold is None or space.thinking or set(at_hand) != {space.foretold}:
        return None
    return Prospects(base, [space.foretold])
