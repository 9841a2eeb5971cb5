"""What a machine has and what a trial may take of it. Knows nothing of recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def find_device() -> str:
    """ "cuda" where an NVIDIA GPU is visible, else "cpu"; asked without loading torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    present = Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists()
    return "cuda" if present and not hidden else "cpu"


def trial_resources(device: str, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What one trial takes: the device it is timed on, a whole GPU or all cores of a CPU machine.

    Two trials on one device would time each other. A trial holds it from its beginning to its end or pause, also while
    it writes and hashes what it built: the engines that stay warm there are what takes long to start. `nodes` are the
    resources that Ray counts on each node. Raises `LookupError` when no node has the device: such a trial would wait
    for ever.
    """
    if device != "cuda":
        return {"CPU": max(node.get("CPU", 0.0) for node in nodes)}
    with_gpu = [node for node in nodes if node.get("GPU", 0.0) >= 1]
    if not with_gpu:
        raise LookupError("no node of the Ray cluster has a GPU, and trials are to be timed on one")
    return {"CPU": min(4.0, min(node["CPU"] / node["GPU"] for node in with_gpu)), "GPU": 1.0}


def trials_at_once(takes: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials, each taking `takes`, the nodes hold side by side."""
    # a share such as a third of ten cores is a little more than a third once it is a float
    held = (min(int(node.get(name, 0.0) / amount + 1e-6) for name, amount in takes.items()) for node in nodes)
    return max(1, sum(held))
