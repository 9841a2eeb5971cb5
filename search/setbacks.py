"""How often a trial is run again when its worker was lost, and from when on it rather seems to end its workers itself.

A machine that is taken away says nothing about the trial that ran there: Ray Tune runs that one again elsewhere, from
its last finished rung. But a trial may also bring down each node it runs on. Who loses too many without finishing a
rung in between gets no further try, and who crashed its own process gets one. Knows nothing of recipes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.tune import Callback

from search.placing import Misplaced, fault_of

NODES = 4  # lost one after the other by a trial that finished no rung in between
ALWAYS, NEVER = -1, 0  # in Tune's words: how many failures a trial may have
NODE_DIED = "node has died"  # what Ray says of an actor whose node went without notice


class Setbacks(Callback):
    """Tune is to run trials again `ALWAYS`; this takes that back from one that had its tries.

    `say` is told of each trial that goes on elsewhere.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.nodes: Counter[str] = Counter()  # lost since the last finished rung, by Tune's names of trials

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        del self.nodes[trial.trial_id]
        trial.max_failures = ALWAYS

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        fault, name = fault_of(trial), trial.config["name"]
        if isinstance(fault, Misplaced):
            return
        if not lost_its_node(fault):
            trial.max_failures = NEVER
            self.say(f"{name}: its worker failed; it is tried once more")
            return
        self.nodes[trial.trial_id] += 1
        if self.nodes[trial.trial_id] >= NODES:
            trial.max_failures = NEVER
        self.say(f"{name}: its node is gone; it goes on elsewhere, from its last finished rung")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks with its state; a resumed search makes its own


def lost_its_node(fault: Exception | None) -> bool:
    """Whether a worker ended with its machine, or is out of reach, rather than by what it did itself."""
    if isinstance(fault, ActorDiedError):
        return fault.preempted or NODE_DIED in str(fault)
    return isinstance(fault, ActorUnavailableError) or (isinstance(fault, RayActorError) and fault.preempted)
