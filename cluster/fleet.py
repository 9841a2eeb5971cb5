"""The nodes of a Ray cluster that trials may run on, and why others are left out. Nodes come and go.

A node whose answer is late is left out until it comes; one that was left out is asked again, since people mend nodes.

Needs a Ray that was joined. Knows nothing of trials, nor of Ray Tune.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.kinds import Kind, kind_of
from cluster.nodes import Expected, NodeReport, differs, look_here

PAUSE = 2.0  # seconds between two looks at the cluster: Tune's loop turns ten times a second
PATIENCE = 60.0  # seconds until a node that does not answer is left out; it may answer later all the same
AGAIN, LONGEST = 60.0, 3600.0  # seconds until a node that was left out is asked again: twice as long each time
NONE = "no fit node is left"
SHOWN = 8  # digits of a node's id that tell it from others


@dataclass
class Node:
    """One node that a trial could run on, as far as it is known by now."""

    id: str
    address: str
    resources: Mapping[str, float]
    asked: float = 0.0
    answer: Any = None  # Ray's promise of a report, until it came
    report: NodeReport | None = None
    lacks: list[str] = field(default_factory=list)
    kind: Kind | None = None
    small: bool = False  # it cannot hold even one trial
    pause: float = field(default_factory=lambda: AGAIN)
    again: float = float("inf")  # when it is asked again

    @property
    def waits(self) -> bool:
        """Whether nothing is known of it: neither a report nor that it does not answer."""
        return self.answer is not None and not self.lacks

    def __str__(self) -> str:
        host = f" ({self.report.host})" if self.report is not None else ""
        return f"node {self.id[:SHOWN]} at {self.address}{host}"


class Fleet:
    """`expected` is what each node must hold; where it is None, nobody is looked at and all are fit.

    `device` is what trials are timed on, None where every node counts, and `gpus` how many of it a trial takes of one
    node. `say` is told once of each node left out.
    """

    def __init__(
        self,
        expected: Expected | None,
        device: str | None,
        say: Callable[[str], None],
        patience: float = PATIENCE,
        gpus: int = 1,
    ) -> None:
        self.expected = expected
        self.device = device
        self.say = say
        self.patience = patience
        self.gpus = gpus
        self.kind: Kind | None = None  # the one that trials run on, once it was chosen
        self.known: dict[str, Node] = {}
        self._told: set[str] = set()
        self._looked = float("-inf")

    def fit(self) -> list[Node]:
        """Those that trials may run on."""
        return [node for node in self.known.values() if not node.lacks and not node.waits and self._right(node)]

    def resources(self) -> list[Mapping[str, float]]:
        """What Ray counts on each of them."""
        return [node.resources for node in self.fit()]

    def barred(self) -> list[str]:
        """Ids of those that no trial may be placed on, or not yet: who has just joined is among them."""
        self._count()
        fit = {node.id for node in self.fit()}
        return sorted(self.known.keys() - fit)

    def untold(self) -> list[str]:
        """Ids of those of which there is no report: they were not asked yet, or could not tell."""
        self._count()
        known = self.known.values() if self.expected is not None else ()
        return [node.id for node in known if node.report is None and not node.small]

    def settle(self) -> None:
        """Look at all nodes that are there, and wait for what they say."""
        self._looked = float("-inf")
        self.look()
        while any(node.waits for node in self.known.values()):
            time.sleep(0.1)
            self._hear()
        self._tell()

    def choose(self, kind: Kind) -> None:
        """From here on nodes of another kind are left out, too."""
        self.kind = kind
        if self.expected is not None:  # workers look at their own nodes by it
            self.expected = self.expected.model_copy(update={"device_name": kind.name})
        self._tell()

    def look(self) -> None:
        """See who came and went, ask the new ones, hear what was answered. Returns at once."""
        now = time.monotonic()
        if now - self._looked < PAUSE:
            return
        self._looked = now
        self._count()
        self._hear()
        self._tell()

    def leave_out(self, node: str, why: str) -> None:
        """What a trial found where it began."""
        if node not in self.known:
            self._count()
        if node in self.known and not self.known[node].lacks:
            self.known[node].answer = None  # whatever is answered yet: that trial saw it
            self._judge(self.known[node], [why])
            self._tell()

    def _count(self) -> None:
        import ray

        alive = {one["NodeID"]: one for one in ray.nodes() if one["Alive"]}
        self.known = {name: node for name, node in self.known.items() if name in alive}
        for name, one in alive.items():
            if name in self.known or (self.device and kind_of(self.device, one["Resources"]) is None):
                continue
            node = self.known[name] = Node(name, one["NodeManagerAddress"], one["Resources"])
            if why := self._too_few(node):
                node.lacks, node.small = [why], True  # for good: a node keeps what Ray counts on it
            else:
                self._ask(node)
        for node in self.known.values():
            if node.lacks and node.answer is None and time.monotonic() >= node.again:
                self._ask(node)

    def _ask(self, node: Node) -> None:
        node.asked = time.monotonic()
        if self.expected is None:
            node.kind = kind_of(self.device or "cpu", node.resources)
            self._judge(node, [])
        else:
            node.answer = ask(node.id, self.expected.engine, self.expected.files)

    def _judge(self, node: Node, lacks: list[str]) -> None:
        if lacks != node.lacks:
            self._told.discard(node.id)
        if lacks:
            node.again = time.monotonic() + node.pause
            node.pause = min(2 * node.pause, LONGEST)
        elif node.lacks:
            self.say(f"{node} is fit now")
        node.lacks = lacks

    def _too_few(self, node: Node) -> str:
        """Why a node cannot hold even one trial; nothing where it can."""
        unit = "GPU" if self.device == "cuda" else "CPU"
        has = node.resources.get(unit, 0.0)
        if self.device is None or has >= self.gpus:
            return ""
        return f"it has {has:g} {unit}{'s' * (has != 1)}, and a trial takes {self.gpus} (gpus)"

    def _hear(self) -> None:
        import ray

        asked = {node.answer: node for node in self.known.values() if node.answer is not None}
        ready, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for answer in ready:
            node = asked[answer]
            node.answer = None
            node.report, lacks = read(answer, self.expected)
            node.kind = kind_of(self.device or "cpu", node.resources, self._name(node))
            self._judge(node, lacks)
        for node in (asked[one] for one in waiting):
            if time.monotonic() - node.asked > self.patience and not node.lacks:
                node.lacks = [f"no answer in {self.patience:.0f} s: see that Ray can start workers there"]

    def _name(self, node: Node) -> str:
        """Of its device; one that Ray counts and no driver shows has none."""
        same = node.report is not None and self.device in (None, node.report.device)
        return node.report.device_name if node.report is not None and same else ""

    def _right(self, node: Node) -> bool:
        return self.kind is None or (node.kind is not None and self.kind.like(node.kind))

    def _tell(self) -> None:
        """Once of each node that is left out; of those of another kind, once of each kind."""
        for node in self.known.values():
            if node.lacks and node.id not in self._told:
                self._told.add(node.id)
                self.say(f"{node} is left out: {'; '.join(node.lacks)}")
        self._tell_of_none()
        others = Counter(
            str(node.kind) for node in self.known.values() if not (node.lacks or node.waits or self._right(node))
        )
        for other, number in others.items():
            if other not in self._told:
                self._told.add(other)
                nodes = f"{number} node{'s' * (number > 1)} with {other}"
                self.say(f"{nodes} left unused: this search runs on {self.kind} alone, for its scores to be comparable")

    def _tell_of_none(self) -> None:
        """Once each time that the last node was lost which trials ran on."""
        if self.kind is None:
            return
        if self.fit():
            self._told.discard(NONE)
        elif NONE not in self._told:
            self._told.add(NONE)
            self.say(f"{NONE} with {self.kind}: trials wait until one joins, or is mended")


def ask(node: str, engine: str, files: Sequence[str] = ()) -> Any:
    """Ray's promise of what `look_here` finds on a node, whatever else runs there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(look_here).options(scheduling_strategy=there).remote(engine, files)


def read(answer: Any, expected: Expected | None) -> tuple[NodeReport | None, list[str]]:
    """The report that an answer is, and what it lacks; a node that cannot even tell lacks more."""
    import ray

    try:
        report = NodeReport.model_validate(ray.get(answer))
    except Exception as fault:  # whatever another environment makes Ray raise, it is the node that does not fit
        words = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
        told = next((line for line in words if "Error" in line and "ray::" not in line), words[-1])
        return None, [f"it cannot look at itself ({told[:200]}): run `make setup` there, at the same commit as here"]
    return report, differs(report, expected) if expected is not None else []
