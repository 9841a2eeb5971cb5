"""What a recipe could score at best, told before anything is built: the roofline's speed beside quality kept whole.

The bottom of the rungs: a recipe that could not win even so is not begun. Holds for the contest's workload on the
device that the space names as its target. Needs configs alone, no weights and no GPU. Knows nothing of what was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.description import Description, description_of
from evaluation.devices import DeviceName
from evaluation.roofline import predict
from evaluation.score import combine
from evaluation.workload import CONTEST
from search.recipe import Recipe
from search.space import Space
from search.target import described, device_of

PERF_AT_BEST = 1.05  # of PerfNorm: recovery may leave a model a little better than its base
LENGTH = 0.1  # of SpeedNorm: who says more than the base takes less time a token
KIND = "accelerator_type:"  # how Ray names a node's GPU among its resources
KINDS: dict[str, DeviceName] = {"L4": "L4"}  # Ray's names that mean one device, whatever its memory or socket


class Prospects:
    """Of recipes for the model in `base` on any of `devices`; where none is known, nothing is ruled out."""

    def __init__(self, base: Path, devices: Iterable[DeviceName]) -> None:
        self.base = base
        self.devices = [device_of(name) for name in devices]
        self.original = description_of(base) if self.devices else None
        self._known: dict[Description, float] = {}

    def ceiling(self, recipe: Recipe) -> float:
        """The score on the fastest device, SpeedNorm as much above its prediction as roofline and length may put it."""
        if self.original is None:
            return math.inf
        model = described(recipe, self.base)
        if model not in self._known:
            speeds = (predict(model, self.original, CONTEST, one).speed_norm + one.error for one in self.devices)
            self._known[model] = combine(PERF_AT_BEST, max(speeds) + LENGTH)
        return self._known[model]


def ceiling_for(space: Space, base: Path, at_hand: Collection[str]) -> Callable[[Recipe], float] | None:
    """What a recipe could score at best where all devices `at_hand` are the space's target; None elsewhere."""
    if space.target is None or space.thinking or set(at_hand) != {space.target}:
        return None
    return Prospects(base, [space.target]).ceiling


def devices_of(nodes: Iterable[Mapping[str, Any]]) -> list[DeviceName]:
    """The GPUs of a cluster by the resources that Ray counts on its nodes; none where one is no device we know.

    What is ruled out is ruled out for all of them: one unknown device makes every recipe worth a trial.
    """
    found: set[DeviceName] = set()
    for node in nodes:
        kinds = [name.removeprefix(KIND) for name in node if name.startswith(KIND)]
        if node.get("GPU", 0) > 0 and not (kinds and all(kind in KINDS for kind in kinds)):
            return []
        found |= {KINDS[kind] for kind in kinds if kind in KINDS}
    return sorted(found)
