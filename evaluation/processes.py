"""A session of processes: end it with all it started, and see that its memory is free. Knows nothing of engines."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 30.0  # seconds after SIGKILL: a GPU's driver gives a large context back in a few


def of_session(leader: int) -> set[int]:
    """Every process of the session that `leader` began, itself too, whatever group it moved to; no zombies."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            state, _, _, session = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.add(int(folder.name))
    return found


def end_session(leader: int) -> set[int]:
    """Kill every process of the session; returns whom it met. They may need a moment more: `await_released`."""
    met: set[int] = set()
    while fresh := of_session(leader) - met:  # whoever was born between the look and the kill
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
        met |= fresh
    return met


def await_released(pids: set[int], device: str, patience: float = PATIENCE) -> set[int]:
    """Wait until none of `pids` runs or, on a GPU, is on its driver's list; returns those that still are."""
    left = _awaited(pids, running, patience)
    return left or (_awaited(pids, on_device, patience) if device == "cuda" else set())


def said_of(returncode: int | None) -> str:
    """How a process ended, in words; None for one that had not ended."""
    if returncode is None:
        return "closed its pipe and stayed, so it was killed"
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    reason = ", as the kernel does when memory runs out" if returncode == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-returncode).name}{reason}"


def running(pids: set[int]) -> set[int]:
    """Those of `pids` that are there and no zombies, whose memory the kernel has already."""
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found.add(pid)
    return found


def on_device(pids: set[int]) -> set[int]:
    """Those of `pids` that hold GPU memory, where nvidia-smi is there; in a container it may know them by other ids."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not pids:
        return set()
    command = [tool, "--query-compute-apps=pid", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return pids & {int(word) for word in listed if word.isdigit()}


def _awaited(pids: set[int], still: Callable[[set[int]], set[int]], patience: float) -> set[int]:
    end = time.monotonic() + patience
    while (left := still(pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return left
