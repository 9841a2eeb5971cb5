"""Where Ray Tune may place a trial, and what becomes of one that began where it cannot be measured.

A node that joins is offered to whoever waits before anyone has looked at it. So a worker looks at its own node first,
and gives its trial back where that one differs; what is asked for next is anywhere but there. Nothing is reserved on a
node that is left out: it is free for others, and an autoscaler may take it back.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from ray.exceptions import RayActorError
from ray.tune import Callback, PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from cluster.demand import Demand
from cluster.fleet import Fleet

NODE = "ray.io/node-id"  # a label that Ray gives every node


class Misplaced(RayActorError):
    """Raised by a worker whose node differs: its trial is run again elsewhere.

    Tune counts it against no trial, as it does where a node was taken away (`preempted`).
    """

    def __init__(self, node: str, why: str) -> None:
        super().__init__(error_msg=f"node {node} does not fit: {why}", preempted=True)
        self.node = node
        self.why = why

    def __reduce__(self) -> Any:
        return Misplaced, (self.node, self.why)


class Where(PlacementGroupFactory):
    """One bundle of what a trial `takes`, on any node that the fleet of this name does not bar when it is asked for.

    Tune pickles what it is given; a copy finds the fleet by its name in the process that has it. Two are equal where
    they take the same: a worker stays when a node is left out.
    """

    fleets: ClassVar[WeakValueDictionary[str, Fleet]] = WeakValueDictionary()

    def __init__(self, takes: Mapping[str, float], name: str) -> None:
        super().__init__([dict(takes)])
        self.takes = dict(takes)
        self.name = name

    @classmethod
    def of(cls, takes: Mapping[str, float], name: str, fleet: Fleet) -> Where:
        """The first of its name, where the fleet is."""
        cls.fleets[name] = fleet
        return cls(takes, name)

    def to_placement_group(self) -> PlacementGroup:
        fleet = self.fleets.get(self.name)
        elsewhere = selector(fleet) if fleet is not None else {}
        return placement_group(self.bundles, self.strategy, bundle_label_selector=[elsewhere] if elsewhere else None)

    def __reduce__(self) -> Any:
        return Where, (self.takes, self.name)


def selector(fleet: Fleet) -> dict[str, str]:
    """Of nodes by Ray's labels: any that is not barred by now."""
    barred = fleet.barred()
    return {NODE: f"!in({','.join(barred)})"} if barred else {}


class Newcomers(Callback):
    """Looks at nodes that join while Tune runs, and leaves out those that a worker found unfit.

    Where a worker could not even begin, a node that has not told what it holds may be why: one without squeeze, say.
    Each such node is held against a trial once at most, in place of a failure.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.excused: dict[str, set[str]] = {}  # by Tune's names of trials, the nodes that they were excused for

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.fleet.look()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        fault = fault_of(trial)
        if isinstance(fault, Misplaced):
            self.fleet.leave_out(fault.node, fault.why)
        elif isinstance(fault, RayActorError) and fault.actor_init_failed:
            excused = self.excused.setdefault(trial.trial_id, set())
            if unknown := set(self.fleet.untold()) - excused:
                excused |= unknown
                trial.run_metadata.num_failures -= 1

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks with its state; a resumed search makes its own


class Asking(Callback):
    """Asks for as many nodes as trials are still `left`, so that an autoscaler starts them all at once."""

    def __init__(self, demand: Demand, left: Callable[[], int]) -> None:
        self.demand = demand
        self.left = left

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        running = sum(trial.status == "RUNNING" for trial in trials)
        self.demand.look(self.left() - running)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above


def fault_of(trial: Any) -> Exception | None:
    """What Tune just wrote down, on this machine, as a trial's last error."""
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return None
    fault: Exception = pickle.loads(Path(path).read_bytes())
    return fault
