"""What is read of several GPUs that share a model. No GPU is here: NVML is told."""

import sys
from types import SimpleNamespace

import pytest

from evaluation.machine import Clock, gpu_memory, gpu_mhz


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """Three GPUs, of which CUDA_VISIBLE_DEVICES shows the last two, in the other order."""
    shown, clocks = [2, 1], [900, 1500, 1700]
    told = SimpleNamespace(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetClockInfo=lambda handle, _: clocks[handle],
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=handle * 2**30, total=80 * 2**30),
    )  # fmt: skip
    platform = SimpleNamespace(device_id_to_physical_device_id=lambda number: shown[number])
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setitem(sys.modules, "vllm.third_party", SimpleNamespace(pynvml=told))
    return told


def test_the_slowest_of_those_in_use_tells_the_clock(nvml):
    assert gpu_mhz()() == [1700.0]
    assert gpu_mhz(2)() == [1500.0]
    with Clock("cuda", 2) as clock:
        pass
    assert clock.mhz == 1500.0


def test_memory_is_told_of_each(nvml):
    assert gpu_memory() == ["2.0 of 80.0 GiB free on the GPU"]
    assert gpu_memory(2) == ["2.0 of 80.0 GiB free on GPU 0", "1.0 of 80.0 GiB free on GPU 1"]


def test_one_that_is_not_there_is_no_fault(nvml):
    """What went wrong before is being told."""
    assert gpu_memory(3) == []
    assert gpu_mhz(3)() == []
