"""An engine that is killed, hangs or gets no memory: told by name, gone with all it started, the next model served."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluation import processes
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.processes import end_session, of_session, said_of
from evaluation.protocol import EngineFault, EngineSettings, OutOfMemory, lacks_memory
from evaluation.reference import MODEL
from tests.evaluation import broken

CHAT = [{"role": "user", "content": "Say hello."}]


def address_space(pid):
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def resident(pids):
    """Bytes that `pids` hold."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * resource.getpagesize()


def test_out_of_memory_then_killed_in_mid_batch_then_served_again(engine, tmp_path):
    """A limit on addresses makes a real allocation fail; SIGKILL is what the kernel's out-of-memory killer sends."""
    model = broken.endless(tmp_path / "model")
    engine.load(model)
    engine.unload()
    pid = engine._process.pid
    assert resident(of_session(pid)) > 2**28
    hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + 2**29, hard))  # half of what its KV cache needs
    asked = r"addresses .*; the model has 0\.01 GiB of weights on disk, its KV cache takes 1 GiB$"
    with pytest.raises(
        OutOfMemory, match=rf"^out of memory: load: .*emory.* GiB free on the machine, .* GiB of {asked}"
    ):
        engine.load(model)
    assert (of_session(pid), engine.loaded, Path(f"/proc/{pid}").exists()) == (set(), None, False)

    engine.load(model)
    pid = engine._process.pid
    killer = threading.Timer(1.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(EngineFault, match=r"generate: .* was killed by SIGKILL, as the kernel does when memory runs"):
        engine.generate([CHAT] * 16, [Decoding(max_tokens=1900)] * 16)
    killer.join()
    assert (of_session(pid), engine.loaded, Path(f"/proc/{pid}").exists()) == (set(), None, False)

    engine.load(MODEL)
    assert engine.generate([CHAT], [Decoding(max_tokens=2)]).answers[0].tokens >= 1


@pytest.fixture
def pretender(tmp_path):
    """An engine whose worker is a script: says hello, loads, and does at a batch, or another `op`, what `at` says."""

    def make(at, op="generate", **settings):
        script = tmp_path / "python"
        hello = {"versions": {}, "device": settings.get("device", "cpu"), "kernels": [], "max_model_len": 9}
        script.write_text(
            f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n"
            "for line in sys.stdin:\n"
            "    op = json.loads(line)['op']\n"
            f"    if op == {op!r}:\n        {at}\n"
            f"    print({json.dumps(json.dumps(hello))}, flush=True)\n"
        )
        script.chmod(0o755)
        return Engine(EngineSettings(python=str(script), **settings), tmp_path / "log")

    return make


def test_a_batch_that_takes_too_long_ends_the_engine_and_all_it_started(pretender):
    """A child in a process group of its own, which a kill of the engine's group does not meet."""
    child = f"subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'], process_group=0)"
    engine = pretender(f"{child}; time.sleep(600)", answer_timeout=1.5)
    engine.load(MODEL)
    pid, met = engine._process.pid, set()
    watch = threading.Timer(1.0, lambda: met.update(of_session(pid)))
    watch.start()
    with pytest.raises(EngineFault, match="generate: no answer within 2 s, so it was killed"):
        engine.generate([CHAT], [Decoding(max_tokens=2)])
    assert len(met) == 2
    assert of_session(pid) == processes.running(met) == set()


def test_an_exit_in_mid_batch_is_told_with_its_code(pretender):
    engine = pretender("os._exit(3)")
    engine.load(MODEL)
    with pytest.raises(EngineFault, match="generate: the engine's process ended with exit code 3"):
        engine.generate([CHAT], [Decoding(max_tokens=2)])


@pytest.mark.parametrize(
    ("device", "message", "known"),
    [
        (
            "cpu",
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
            "1099511627776 bytes. Error code 12 (Cannot allocate memory)",
            "the model has 0.01 GiB of weights on disk, its KV cache takes 1 GiB",
        ),
        (
            "cuda",
            "No available memory for the cache blocks",
            "the model has 0.01 GiB of weights on disk, and all it needs must fit in 85% of the GPU's memory",
        ),
    ],
)
def test_a_load_without_memory_says_so_in_words(pretender, device, message, known):
    """As torch and vLLM name it; the weights are the least of what was asked for, so nobody is said to ask for them."""
    reply = {"error": "RuntimeError", "message": message, "refused": False, "memory": "3.1 of 22.0 GiB free"}
    engine = pretender(f"print(json.dumps({reply!r}), flush=True); continue", op="load", device=device)
    with pytest.raises(OutOfMemory) as told:
        engine.load(MODEL)
    assert str(told.value) == f"out of memory: load: RuntimeError: {message} (3.1 of 22.0 GiB free); {known}"


def test_an_engine_does_not_start_before_its_memory_is_free(pretender, monkeypatch):
    """What nvidia-smi lists is not seen here: it is told."""
    monkeypatch.setattr(processes, "on_device", lambda pids: pids)
    monkeypatch.setattr(
        "evaluation.engine.await_released", lambda pids, device: processes.await_released(pids, device, 0.2)
    )
    engine = pretender("", device="cuda")
    engine.launch()
    pid = engine._process.pid
    engine.close()
    with pytest.raises(
        EngineFault, match=rf"processes \[{pid}\] of an engine killed .* still hold memory: see nvidia-smi"
    ):
        engine.launch()


def test_a_gpus_list_is_read_where_there_is_one(tmp_path, monkeypatch):
    assert processes.on_device({os.getpid()}) == set() or processes.shutil.which("nvidia-smi")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '12\\n[Insufficient Permissions]\\n34\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert processes.on_device({12, 56}) == {12}


def test_a_session_ends_with_its_orphans():
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & exit 0"], start_new_session=True)
    shell.wait()
    time.sleep(0.1)
    met = end_session(shell.pid)
    assert len(met) == 2
    assert processes.await_released(met, "cpu", 5.0) == set()


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "exit code 0"), (-9, "SIGKILL, as the kernel does"), (-11, "killed by SIGSEGV"), (None, "closed its pipe")],
)
def test_how_a_process_ended(code, said):
    assert said in said_of(code)


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.03 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        RuntimeError("std::bad_alloc"),
        type("OutOfMemoryError", (RuntimeError,), {})("HIP"),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        ValueError("To serve at least one request with the models's max seq len (65536), (7.5 GiB KV cache is needed"),
        ValueError(
            "Free memory on device cuda:0 (3.1/22.0 GiB) on startup is less than desired GPU memory utilization"
        ),
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(fault):
    assert lacks_memory(f"load: {type(fault).__name__}: {fault}", "")
    assert lacks_memory(
        "load: RuntimeError: Engine core initialization failed", f"ERROR {type(fault).__name__}: {fault}"
    )


def test_other_faults_are_none_of_memory():
    fault = "generate: ValueError: a prompt of 9 tokens does not fit max_model_len 8"
    assert not lacks_memory(fault, "INFO Available KV cache memory: 64.2 GiB\nINFO Free memory on device (78/79 GiB)")
