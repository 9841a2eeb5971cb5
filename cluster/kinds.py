"""Which nodes are of one kind: what is timed on them may be compared. Knows nothing of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cluster.resources import KIND


@dataclass(frozen=True)
class Kind:
    """Of GPUs, as Ray and as their driver name them; of processors, by name and number of CPUs that Ray counts."""

    device: str  # cuda or cpu
    accelerator: str  # "" for a processor, and for a GPU that Ray has no name for
    name: str  # "" where nobody told
    cpus: float = 0.0  # of a processor alone: a trial takes all of them

    def __str__(self) -> str:
        if self.device == "cuda":
            return self.name or self.accelerator or "a GPU without a name"
        return f"{self.cpus:g} CPUs{f' of {self.name}' if self.name else ''}"

    def like(self, other: Kind) -> bool:
        """Whether both are one kind, as far as is known: a name that nobody told speaks for none."""
        same = (self.device, self.accelerator, self.cpus) == (other.device, other.accelerator, other.cpus)
        return same and (self.name == other.name or not (self.name and other.name))


def kind_of(device: str, resources: Mapping[str, float], name: str = "") -> Kind | None:
    """Of a node with `resources` by Ray's count; None where it has nothing that a trial on `device` could be timed on.

    What Ray calls GPU on a node and its driver by another name is told by the latter alone.
    """
    if device == "cuda":
        if resources.get("GPU", 0.0) < 1:
            return None
        names = [one.removeprefix(KIND) for one in resources if one.startswith(KIND)]
        return Kind(device, names[0] if names else "", name)
    if resources.get("CPU", 0.0) < 1:
        return None
    return Kind(device, "", name, resources["CPU"])


def most_frequent(kinds: Iterable[Kind], names: Collection[str] = ()) -> Kind | None:
    """The kind that most nodes are of; of those that `names` holds, by accelerator or name, where there are any.

    Of two as frequent, the one with more CPUs, then the first by name: the same choice whoever is asked first.
    """
    counted = Counter(kinds)
    wanted = {one: n for one, n in counted.items() if one.accelerator in names or one.name in names} or counted
    return max(wanted, key=lambda one: (wanted[one], one.cpus, one.accelerator, one.name), default=None)


def hardware(nodes: Iterable[Mapping[str, float]], names: Collection[str] = (), gpus: int = 1) -> tuple[str, str]:
    """What trials on a cluster are timed on, before anyone looked at its nodes: cuda or cpu, and Ray's name of the GPU.

    `names` are Ray's of the GPUs that are preferred; a node with fewer than `gpus` counts where none has as many. A
    cluster with a GPU anywhere is one for GPUs.
    """
    kinds = [(kind, node["GPU"]) for node in nodes if (kind := kind_of("cuda", node)) is not None]
    enough = [kind for kind, number in kinds if number >= gpus]
    chosen = most_frequent(enough or [kind for kind, _ in kinds], names)
    return ("cuda", chosen.accelerator) if chosen is not None else ("cpu", "")
