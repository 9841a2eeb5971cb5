"""How far passes of one model lie apart in vLLM alone: `python -m tests.benchmarks.gpu_noise FOLDER`, on a GPU.

FOLDER holds a config and tokenizer; weights are vLLM's dummies. vLLM runs as it comes, its core in its own process.
Passes over four workloads, then again over two of them while a thread reads the GPU's clock, as squeeze's worker does.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from pathlib import Path

import typer

WORKLOADS = {  # prompts, tokens of each, new tokens, passes, passes beside a thread that reads the clock
    "chat": (80, 180, 300, 10, 8),
    "choice": (512, 400, 8, 6, 4),
    "short": (64, 200, 32, 10, 0),
    "long": (32, 8000, 32, 3, 0),
}


def main(folder: Path) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    from vllm import LLM, SamplingParams
    from vllm.third_party import pynvml

    llm = LLM(
        model=str(folder), load_format="dummy", max_model_len=16384, gpu_memory_utilization=0.85, seed=0,
        enable_prefix_caching=False, max_num_batched_tokens=8192, max_num_seqs=256, dtype="bfloat16",
    )  # fmt: skip
    draw = random.Random(0)
    prompts = {
        name: [{"prompt_token_ids": [draw.randrange(1000, 90000) for _ in range(tokens)]} for _ in range(count)]
        for name, (count, tokens, *_) in WORKLOADS.items()
    }

    def one_pass(name: str) -> float:
        sampling = SamplingParams(max_tokens=WORKLOADS[name][2], temperature=0, ignore_eos=True, seed=0)
        begin = time.perf_counter()
        llm.generate(prompts[name], sampling, use_tqdm=False)
        return time.perf_counter() - begin

    def show(kind: str, name: str, times: int) -> None:
        took = [one_pass(name) for _ in range(times)]
        mean, passes = statistics.mean(took), " ".join(f"{one:.3f}" for one in took)
        apart = 100 * statistics.stdev(took) / mean
        print(f"{kind} {name}: mean {mean:.3f} s, deviation {apart:.1f} %: {passes}")

    for name in WORKLOADS:
        one_pass(name)  # warm
    for name, (*_, times, _) in WORKLOADS.items():
        show("alone", name, times)
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    for name, (*_, times) in WORKLOADS.items():
        if times:
            show("clock read", name, times)
    over.set()
    thread.join()


if __name__ == "__main__":
    typer.run(main)
