"""How often a trial is run again when its worker was lost, and from when on it rather seems to end its workers itself.

A machine that is taken away says nothing about the trial that ran there: Ray Tune runs that one again elsewhere, from
its last finished rung. But a trial may also bring down each node it runs on. Who loses too many, of which no notice was
given, without finishing a rung in between is ended, and who crashed its own process gets one more try. Where what is
kept elsewhere is out of reach, no trial is to blame: if that lasts and nobody gets on, the search ends, to be resumed.
Knows nothing of recipes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError
from ray.tune import Callback

from cluster.storage import StorageFault
from search.placing import Misplaced, fault_of

NODES = 4  # lost one after the other by a trial that finished no rung in between
LASTS = 600.0  # seconds of an outage, in which no trial finishes a rung, after which the search ends
ALWAYS = -1  # in Tune's words: a trial may have any number of failures
NODE_DIED = "node has died"  # what Ray says of an actor whose node went without notice


class Setbacks(Callback):
    """Tune is to run trials again `ALWAYS`; this takes that back from one that had its tries.

    `say` is told of each trial that goes on elsewhere. Raises `StorageFault`, which ends Tune, when an outage `LASTS`.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.nodes: Counter[str] = Counter()  # lost since the last finished rung, by Tune's names of trials
        self.counted: Counter[str] = Counter()  # failures by now, as Tune counts them
        self.out_since: float | None = None  # what is kept elsewhere is out of reach

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        del self.nodes[trial.trial_id]
        trial.max_failures = ALWAYS
        self.out_since = None

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        fault, name = fault_of(trial), trial.config["name"]
        if isinstance(fault, Misplaced) and not fault.outage:
            return
        excused = trial.num_failures <= self.counted[trial.trial_id]  # a notice was given, or a node is to blame
        self.counted[trial.trial_id] = trial.num_failures
        if outage := outage_in(fault):
            self._met(outage, name)
        elif lost_its_node(fault):
            self.say(f"{name}: its node is gone; it goes on elsewhere, from its last finished rung")
            self.nodes[trial.trial_id] += not excused
            if self.nodes[trial.trial_id] >= NODES - 1:
                self._last_try(trial)
        elif not excused:
            self.say(f"{name}: its worker failed; it is tried once more")
            self._last_try(trial)

    def _met(self, outage: str, name: str) -> None:
        now = time.monotonic()
        if self.out_since is None:
            self.out_since = now
        elif now - self.out_since >= LASTS:
            raise StorageFault(outage)
        self.say(f"{name}: what is kept elsewhere was out of reach; it is tried again ({outage})")

    def _last_try(self, trial: Any) -> None:
        trial.max_failures = trial.num_failures  # what Tune does not count stays free

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks with its state; a resumed search makes its own


def outage_in(fault: Exception | None) -> str:
    """What could not be reached, if a worker failed of that; Tune's own saving and restoring ends in an `OSError`."""
    if isinstance(fault, Misplaced):
        return fault.why if fault.outage else ""
    cause = fault.cause if isinstance(fault, RayTaskError) else None
    return " ".join(str(cause).split()) if isinstance(cause, StorageFault | OSError) else ""


def lost_its_node(fault: Exception | None) -> bool:
    """Whether a worker ended with its machine, or is out of reach, rather than by what it did itself."""
    if isinstance(fault, ActorDiedError):
        return fault.preempted or NODE_DIED in str(fault)
    return isinstance(fault, ActorUnavailableError) or (isinstance(fault, RayActorError) and fault.preempted)
