"""How many trials may be begun at a time: as many as the nodes hold by now, and one that waits for the next to end.

Where trials are paused, which go on before new ones, none waits beside one that waits already.

Ray Tune by itself starts one worker after the other where a searcher learns from what came before. A trial that waits
longer than it has to was chosen knowing less. And it gives a worker that is free to the first that waits, ending the
start of another that is made for it: where trials end sooner than workers start, few are ever at work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

LONG = 600.0  # seconds in which a worker starts, if it ever does: others may hold places that Ray counts
UNLIMITED = "1000"  # what Tune is told, in TUNE_MAX_PENDING_TRIALS_PG, for this to be the limit


class Room(Callback):
    """`side_by_side` says how many trials the nodes hold; nodes come and go. Tune calls before it asks for trials."""

    def __init__(self, side_by_side: Callable[[], int]) -> None:
        self.side_by_side = side_by_side
        self.running = 0
        self.taken = 0  # by trials that run or wait for a worker; those that are paused take none
        self.waits = self.paused = False  # whether some do
        self.since: dict[str, float] = {}  # when those that are pending were first seen to be

    @property
    def full(self) -> bool:
        spare = 0 if self.waits and self.paused else 1
        return self.taken >= self.side_by_side() + spare

    def take(self) -> None:
        """A trial is begun, and waits for a worker."""
        self.taken += 1
        self.waits = True

    def next_of(self, pending: Sequence[Trial]) -> Trial:
        """Whom a worker that is free is for: of those pending, in the order of their making, the first for whom none is
        starting, as far as counting tells; and whoever has waited for `LONG`, since its worker may never come."""
        oldest = self.since.get(pending[0].trial_id)
        if len(pending) == 1 or (oldest is not None and time.monotonic() - oldest > LONG):
            return pending[0]
        starting = self.side_by_side() - self.running - 1  # all places but those at work and the free one
        return pending[min(max(starting, 0), len(pending) - 1)]

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        states = Counter(trial.status for trial in trials)
        now, pending = time.monotonic(), [one.trial_id for one in trials if one.status == Trial.PENDING]
        self.since = {name: self.since.get(name, now) for name in pending}
        self.running = states[Trial.RUNNING]
        self.taken = states[Trial.PENDING] + self.running
        self.waits, self.paused = states[Trial.PENDING] > 0, states[Trial.PAUSED] > 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks with its state; a resumed search makes its own
