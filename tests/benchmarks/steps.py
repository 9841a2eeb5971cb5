"""Seconds and memory that each step takes on `tiny`: `python -m tests.benchmarks.steps`.

Each in a process of its own, twice: the first time with the import of its library. Memory is the largest the process
held, libraries and all. About six minutes on 2 cores.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.resources import find_device
from compressors.build import build
from compressors.data import read_conversations
from compressors.steps import parse_step
from compressors.store import Store
from evaluation.reference import CALIBRATION, MODEL

TOKENS = 20_000
STEPS: list[dict[str, Any]] = [
    {"step": "drop_layers", "count": 2},
    {"step": "drop_layers", "count": 2, "by": "greedy_kl"},
    {"step": "drop_layers", "count": 2, "by": "evolutionary_kl"},
    {"step": "prune_ffn", "width": 448},
    {"step": "prune_heads", "kv_heads": 1},
    {"step": "prune_hidden", "hidden": 192},
    {"step": "trim_vocab", "mode": "exact"},
    {"step": "sparsify", "method": "magnitude", "sparsity": 0.1},
    {"step": "sparsify", "method": "sparsegpt", "sparsity": 0.1},
    {"step": "distill", "tokens": TOKENS, "fake_quant": "W8A8"},
    {"step": "finetune", "tokens": TOKENS, "trains": "lora"},
    {"step": "finetune", "tokens": TOKENS},
    {"step": "quantize", "scheme": "W8A8"},
    {"step": "quantize", "scheme": "W4A16"},
    {"step": "quantize", "scheme": "W8A8", "method": "gptq"},
    {"step": "quantize", "scheme": "W4A16", "method": "awq"},
    {"step": "context", "max_position_embeddings": 1024},
    {"step": "generation", "stop": [2]},
]


def seconds(fields: dict[str, Any]) -> float:
    """Of one build in an empty store."""
    data = read_conversations(CALIBRATION)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        build([parse_step(fields)], MODEL, Store(Path(folder)), data, device=find_device())
        return time.perf_counter() - begin


def measured(fields: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of the first and the second time, and the process's peak in MB."""
    return seconds(fields), seconds(fields), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    print("| step | first, s | second, s | peak MB |\n| --- | --- | --- | --- |")
    for fields in STEPS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            first, second, peak = pool.apply(measured, (fields,))
        told = f" ({fields['tokens'] / second:,.0f} tokens a second)" if "tokens" in fields else ""
        name = " ".join(str(value) for value in fields.values())
        print(f"| {name} | {first:.2f} | {second:.2f}{told} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
