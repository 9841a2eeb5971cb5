"""Seconds that each step takes on `tiny`: `python -m tests.benchmarks.steps`. The first import of its library apart."""

from __future__ import annotations

import os
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

TOKENS = 60_000
STEPS: list[dict[str, Any]] = [
    {"step": "drop_layers", "count": 2},
    {"step": "distill", "tokens": TOKENS},
    {"step": "quantize", "scheme": "W8A8"},
    {"step": "quantize", "scheme": "W4A16"},
    {"step": "quantize", "scheme": "W8A8", "method": "gptq"},
    {"step": "context", "max_position_embeddings": 1024},
]


def seconds(fields: dict[str, Any]) -> float:
    """Of one build in an empty store."""
    data = read_conversations(CALIBRATION)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        build([parse_step(fields)], MODEL, Store(Path(folder)), data, device=find_device())
        return time.perf_counter() - begin


def main() -> None:
    print("| step | first | second |\n| --- | --- | --- |")
    for fields in STEPS:
        first, second = seconds(fields), seconds(fields)
        told = f" ({TOKENS / second:,.0f} tokens a second)" if fields["step"] == "distill" else ""
        print(f"| {' '.join(str(value) for value in fields.values())} | {first:.2f} | {second:.2f}{told} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
