"""Where Ray Tune may place a trial, and what becomes of one that began where it cannot be measured.

A node that joins is offered to whoever waits before anyone has looked at it. So a worker looks at its own node first,
and gives its trial back where that one differs; what is asked for next is anywhere but there. Nothing is reserved on a
node that is left out: it is free for others, and an autoscaler may take it back. Who waits for a place is asked for
anew once a node is fit that was barred then.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import ray
from ray.air.execution import PlacementGroupResourceManager, ResourceRequest
from ray.exceptions import RayActorError
from ray.tune import Callback, PlacementGroupFactory
from ray.tune.execution import tune_controller
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.demand import Demand
from cluster.fleet import Fleet

NODE = "ray.io/node-id"  # a label that Ray gives every node


class Misplaced(RayActorError):
    """Raised by a worker whose node differs, or does not reach what is kept elsewhere (`outage`): its trial is run
    again on another one.

    Tune counts it against no trial, as it does where a node was taken away (`preempted`).
    """

    def __init__(self, node: str, why: str, outage: bool = False) -> None:
        super().__init__(error_msg=f"node {node} does not fit: {why}", preempted=True)
        self.node = node
        self.why = why
        self.outage = outage

    def __reduce__(self) -> Any:
        return Misplaced, (self.node, self.why, self.outage)


class Where(PlacementGroupFactory):
    """One bundle of what a trial `takes`, on any node that the fleet of this name does not bar when it is asked for.

    Tune pickles what it is given; a copy finds the fleet by its name in the process that has it. Two are equal where
    they take the same: a worker stays when a node is left out.
    """

    fleets: ClassVar[WeakValueDictionary[str, Fleet]] = WeakValueDictionary()
    barred: ClassVar[WeakKeyDictionary[PlacementGroup, list[str]]] = WeakKeyDictionary()  # when it was asked for

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
        barred = fleet.barred() if fleet is not None else []
        elsewhere = [selector(barred)] if barred else None
        asked: PlacementGroup = placement_group(self.bundles, self.strategy, bundle_label_selector=elsewhere)
        self.barred[asked] = barred
        return asked

    def is_past(self, asked: PlacementGroup) -> bool:
        """Whether it bars a node that is fit by now."""
        fleet = self.fleets.get(self.name)
        return fleet is not None and any(node.id in self.barred[asked] for node in fleet.fit())

    def __reduce__(self) -> Any:
        return Where, (self.takes, self.name)


class Places(PlacementGroupResourceManager):
    """Tune's own, which keeps what it asked for as it was asked; Ray can change neither. `Where` is asked again."""

    def update_state(self) -> None:
        super().update_state()
        for request, staged in list(self._request_to_staged_pgs.items()):
            for asked in [one for one in staged if isinstance(request, Where) and request.is_past(one)]:
                self._give_up(request, asked)
                self.request_resources(request)

    def _give_up(self, request: ResourceRequest, asked: PlacementGroup) -> None:
        """As `cancel_resource_request` does with whichever comes first."""
        self._request_to_staged_pgs[request].remove(asked)
        future = self._pg_to_staging_future.pop(asked)
        self._staging_future_to_pg.pop(future)
        self._pg_to_request.pop(asked)
        ray.cancel(future)
        remove_placement_group(asked)


@contextlib.contextmanager
def places() -> Iterator[None]:
    """Tune has `Places` meanwhile; it can be given one nowhere but in its controller, which `Tuner` makes itself."""
    names, manager = vars(tune_controller), PlacementGroupResourceManager.__name__
    names[manager] = Places
    try:
        yield
    finally:
        names[manager] = PlacementGroupResourceManager


def selector(barred: Sequence[str]) -> dict[str, str]:
    """Of nodes by Ray's labels: any that is not among these."""
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
