"""What OpenMP's threads cost when cores are shared: `python -m tests.benchmarks.engine_threads`.

The same 30 prompts, eight passes, under four environments of vLLM's CPU build, while another process keeps every core
busy. Prints seconds a pass by the wall clock. Takes about five minutes on 2 cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from evaluation.benchmarks.base import Decoding, read_rows
from evaluation.benchmarks.kmmlu_pro import KmmluPro
from evaluation.engine import Engine
from evaluation.protocol import EngineSettings
from evaluation.reference import ITEMS, MODEL

PASSES, PROMPTS = 8, 30
SQUEEZE = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")  # what squeeze sets
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "vLLM's defaults": {},
    "`VLLM_CPU_OMP_THREADS_BIND=0`": {"VLLM_CPU_OMP_THREADS_BIND": "0"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
    "`VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1`": {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    },
}
# As training does: many short parallel regions, one thread a core.
BUSY = "import torch\nx = torch.randn(512, 512)\nwhile True: x = torch.nn.functional.normalize(x @ x)"


class BareEngine(Engine):
    """The engine without squeeze's thread settings, with `extra` in their place."""

    extra: dict[str, str]

    def _environment(self) -> dict[str, str]:
        plain = {name: value for name, value in super()._environment().items() if name not in SQUEEZE}
        return plain | self.extra


def passes(extra: dict[str, str], log: Path) -> list[float]:
    benchmark = KmmluPro()
    items = benchmark.items(read_rows(ITEMS / "kmmlu_pro.jsonl", benchmark.columns))[:PROMPTS]
    chats = [[{"role": "user", "content": item.turns[0]}] for item in items]
    engine = BareEngine(EngineSettings(max_model_len=2048), log)
    engine.extra = extra
    with engine:
        engine.load(Path(MODEL))
        return [engine.generate(chats, [Decoding(max_tokens=16)] * PROMPTS).seconds for _ in range(PASSES)]


def main() -> None:
    os.environ.pop("OMP_WAIT_POLICY", None)
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        with tempfile.TemporaryDirectory() as folder:
            print("| environment of the engine | passes |\n| --- | --- |")
            for name, extra in ENVIRONMENTS.items():
                print(f"| {name} | {' '.join(f'{s:.2f}' for s in passes(extra, Path(folder) / 'log'))} |", flush=True)
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()
