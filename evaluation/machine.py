"""What the machine of an engine is and does: its names, clocks and free memory.

Imported by `worker.py`, beside which it lies, in the engine's own environment. Asks a GPU through NVML alone: a process
that has begun CUDA cannot be forked, and vLLM forks its core.
"""

import os
import platform
import resource
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def memory(device: str, gpus: int = 1) -> str:
    """What memory there is now, in words; of each of the first `gpus`."""
    told: list[str] = []
    if device == "cuda":
        told += gpu_memory(gpus)
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {line[0]: int(line[1]) / 2**20 for line in lines}
    told.append(f"{sizes['MemAvailable:']:.1f} of {sizes['MemTotal:']:.1f} GiB free on the machine")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        told.append(f"{limit / 2**30:.1f} GiB of addresses allowed to the process")
    return ", ".join(told)


def device_name(device: str) -> str:
    if device == "cuda":
        from vllm.platforms import current_platform  # asks NVML: a process that has begun CUDA cannot be forked

        return str(current_platform.get_device_name(0))
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Clock:
    """Reads a device's clock while it works: `mhz` is the median afterwards, None where the machine does not tell.

    A GPU's twice a second, which no timing shows (docs/measurements.md); of several that share a model the slowest's,
    for which the others wait. A processor's once, when the work is done: reading takes time of the very processor whose
    seconds are counted.
    """

    def __init__(self, device: str, gpus: int = 1) -> None:
        self.read = gpu_mhz(gpus) if device == "cuda" else cpu_mhz
        self.readings: list[float] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True) if device == "cuda" else None

    def watch(self) -> None:
        while True:
            self.readings += self.read()
            if self.over.wait(0.5):
                return

    def __enter__(self) -> "Clock":
        if self.thread is not None:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join()
        else:
            self.readings = self.read()

    @property
    def mhz(self) -> float | None:
        return statistics.median(self.readings) if self.readings else None


def cpu_mhz() -> list[float]:
    """The clocks of the processors this process may use, as the kernel tells them."""
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("cpu MHz")]
    mine = os.sched_getaffinity(0)
    return [float(line.split(":")[1]) for number, line in enumerate(lines) if number in mine]


def gpu_mhz(gpus: int = 1) -> Callable[[], list[float]]:
    """What reads the SM clock of the slowest of the GPUs in use; it reads nothing where NVML does not tell."""
    nvml, handles = nvml_of(gpus)
    if nvml is None:
        return list

    def read() -> list[float]:
        try:
            return [min(float(nvml.nvmlDeviceGetClockInfo(one, nvml.NVML_CLOCK_SM)) for one in handles)]
        except nvml.NVMLError as fault:
            print(f"NVML does not tell the clock: {fault}", file=sys.stderr)
            return []

    return read


def gpu_memory(gpus: int = 1) -> list[str]:
    """Free memory of each GPU in use, in words; nothing where NVML does not tell."""
    nvml, handles = nvml_of(gpus)
    if nvml is None:
        return []
    try:
        found = [nvml.nvmlDeviceGetMemoryInfo(one) for one in handles]
    except nvml.NVMLError as fault:  # asked for while a fault is told: that one must come through
        return [f"NVML does not tell the GPU's memory: {fault}"]
    names = ["the GPU"] if gpus == 1 else [f"GPU {number}" for number in range(gpus)]
    return [
        f"{one.free / 2**30:.1f} of {one.total / 2**30:.1f} GiB free on {name}"
        for one, name in zip(found, names, strict=True)
    ]


def nvml_of(gpus: int) -> tuple[Any, list[Any]]:
    """NVML, as vLLM carries it, and its handles of the GPUs in use; None, and why in the log, where there are none."""
    from vllm.platforms import current_platform
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        physical = map(current_platform.device_id_to_physical_device_id, range(gpus))
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(one) for one in physical]
    except (pynvml.NVMLError, ValueError, IndexError) as fault:
        print(f"NVML does not tell of the GPU: {fault}", file=sys.stderr)
        return None, []
