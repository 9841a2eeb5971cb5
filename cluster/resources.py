"""What a machine has and what a trial may take of it. Knows nothing of recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

KIND = "accelerator_type:"  # how Ray names a node's GPU among its resources
SHARE = 0.001  # of it, which a node has one of, however many GPUs it has


def find_device() -> str:
    """ "cuda" where an NVIDIA GPU is visible, else "cpu"; asked without loading torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return "cuda" if gpu_present() and not hidden else "cpu"


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA GPU, be it hidden from this process."""
    return Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists()


def here() -> dict[str, float]:
    """What this process sees of its machine, as Ray would count it; asked without loading torch."""
    gpus = 0
    if find_device() == "cuda":
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = len(shown.split(",")) if shown else max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))
    return {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(gpus)}


def trial_resources(
    device: str, nodes: Sequence[Mapping[str, float]], kind: str = "", gpus: int = 1
) -> dict[str, float]:
    """What one trial takes of one node: the device it is timed on, whole GPUs or all cores of a CPU machine.

    Two trials on one device would time each other. A trial holds it from its beginning to its end or pause, also while
    it writes and hashes what it built: the engines that stay warm there are what takes long to start. `nodes` are the
    resources that Ray counts on each node, `kind` is Ray's name of the GPU to ask for, where trials are timed on one
    kind of several, `gpus` how many share a model; on a CPU as many processes do, each of which needs a core.
    Raises `LookupError` when no node has the device: such a trial would wait for ever.
    """
    if device != "cuda":
        cores = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        if not nodes:
            raise LookupError("no node of the Ray cluster has a CPU to give")
        if cores < gpus:
            raise LookupError(
                f"{gpus} processes share a model (gpus), each takes a CPU, and the best node has {cores:g}"
            )
        return {"CPU": cores}
    with_gpu = [node for node in nodes if node.get("GPU", 0.0) >= 1 and (not kind or KIND + kind in node)]
    told = f" of the kind {kind}" if kind else ""
    if not with_gpu:
        raise LookupError(f"no node of the Ray cluster has a GPU{told}, and trials are to be timed on one")
    enough = [node for node in with_gpu if node["GPU"] >= gpus]
    if not enough:
        best = max(node["GPU"] for node in with_gpu)
        raise LookupError(f"a trial takes {gpus} GPUs{told} of one node (gpus), and the best has {best:g}")
    takes = {"CPU": gpus * min(4.0, min(node.get("CPU", 0.0) / node["GPU"] for node in enough)), "GPU": float(gpus)}
    return takes | ({KIND + kind: SHARE} if kind else {})


def trials_at_once(takes: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials, each taking `takes`, the nodes hold side by side."""
    # a share such as a third of ten cores is a little more than a third once it is a float
    held = (min(int(node.get(name, 0.0) / amount + 1e-6) for name, amount in takes.items()) for node in nodes)
    return max(1, sum(held))
