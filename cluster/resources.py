"""What a machine has and what a trial may take of it. Knows nothing of recipes."""

from __future__ import annotations

import os
from pathlib import Path


def find_device() -> str:
    """ "cuda" where an NVIDIA GPU is visible, else "cpu"; asked without loading torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    present = Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists()
    return "cuda" if present and not hidden else "cpu"


def trial_resources(device: str) -> dict[str, float]:
    """One trial owns the device it is timed on: a whole GPU, or all cores of a CPU machine.

    Two trials on one device would time each other.
    """
    if device == "cuda":
        return {"CPU": 4, "GPU": 1}
    return {"CPU": float(os.cpu_count() or 1)}
