"""Asks a cluster for nodes that are not there yet: an autoscaler starts what waits for a place.

By placement groups, which end with the driver whatever becomes of it: nobody pays for nodes that a dead search wants.
Each is given back as soon as a node holds it. Needs a Ray that was joined. Knows nothing of trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Demand:
    """`number` times what one trial takes."""

    def __init__(self, takes: Mapping[str, float], number: int) -> None:
        from ray.util.placement_group import placement_group

        self._waiting: list[tuple[Any, Any]] = []
        for _ in range(number):
            group = placement_group([dict(takes)])
            self._waiting.append((group, group.ready()))

    def look(self, wanted: int | None = None) -> int:
        """How many wait by now, of `wanted` at most from here on. Returns at once."""
        import ray

        if self._waiting:
            ready, _ = ray.wait([word for _, word in self._waiting], num_returns=len(self._waiting), timeout=0)
            self._give_back([one for one in self._waiting if one[1] in ready])
        if wanted is not None:
            self._give_back(self._waiting[max(0, wanted) :])
        return len(self._waiting)

    def close(self) -> None:
        self._give_back(list(self._waiting))

    def _give_back(self, those: list[tuple[Any, Any]]) -> None:
        from ray.util.placement_group import remove_placement_group

        for one in those:
            remove_placement_group(one[0])
            self._waiting.remove(one)
