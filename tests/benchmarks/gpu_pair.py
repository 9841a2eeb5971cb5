"""How many more trials an hour more GPUs bring: `python -m tests.benchmarks.gpu_pair FOLDER ROWS --gpus 1,2`.

`squeeze search` as it is, real compression and real vLLM at the shape of the model in FOLDER (its config and tokenizer;
weights are random, for time does not depend on them), once on each number of this machine's GPUs, with as many trials
for each GPU: the same on each, told apart by how many rows layers are chosen on. ROWS are conversations. A trial drops
layers and quantizes, and is measured beside the base. What counts is the time from a search's first trial to its last,
without the start of Ray; the whole of it is told, too. Each search begins with empty caches of compiled kernels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from search.ledger import FINISHED, Ledger
from tests.benchmarks.exaone_shape import random_model

CACHES = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
SPACE = """
steps:
  - {{step: drop_layers, count: {counts}, calibration_rows: {rows_of_each}}}
  - {{step: quantize, scheme: [W8A8], method: [rtn]}}
evaluation: {{limit: {items}, benchmarks: {{kmmlu_redux: "reference:items/kmmlu_redux.jsonl"}}}}
calibration: {rows}
rungs: [{{items: 1.0, tokens: 1.0}}]
searcher: grid
passes: 2
timing_seconds: 0
finalists: 0
trials: {trials}
max_model_len: 2048
"""


def search(base: Path, rows: Path, run: Path, gpus: int, each: int, items: int) -> tuple[float, float, int]:
    """Seconds from the first trial to the last, seconds of all, and trials that were measured to the end."""
    given = {"counts": list(range(1, each + 1)), "rows_of_each": list(range(16, 16 + gpus)), "trials": each * gpus}
    space = run.with_suffix(".yaml")
    space.write_text(SPACE.format(**given, rows=rows, items=items), encoding="utf-8")
    words = ["search", str(space), "--base", str(base), "--out", str(run), "--no-verify"]
    own = {name: str(run.with_suffix(".caches") / name) for name in CACHES}
    visible = os.environ | own | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))), "WANDB_MODE": "disabled"}
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "search.cli", *words], env=visible, check=True, stdout=sys.stderr)
    whole = time.monotonic() - begin
    ends = [line for line in Ledger(run / "ledger.jsonl").read() if line["event"] == "end"]
    begun = min(_begin(path) for path in (run / "logs").glob("t[0-9]*.log"))
    last = max(datetime.fromisoformat(line["time"]).timestamp() for line in ends)
    return last - begun, whole, sum(line["status"] == FINISHED for line in ends)


def _begin(log: Path) -> float:
    return datetime.fromisoformat(log.read_text(encoding="utf-8").split(maxsplit=1)[0]).timestamp()


def main(
    folder: Path,
    rows: Path,
    gpus: Annotated[str, typer.Option(help="numbers of GPUs, each measured by itself")] = "1,2",
    each: Annotated[int, typer.Option(min=2, help="trials for each GPU")] = 6,
    items: Annotated[int, typer.Option(help="questions, asked twice of candidate and base")] = 16,
) -> None:
    print("| GPUs | finished | seconds from first to last | of all | trials an hour | times the first row's |")
    print("| --- | --- | --- | --- | --- | --- |")
    first = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        random_model(folder, base)
        for count in map(int, gpus.split(",")):
            run = Path(scratch) / f"on-{count}"
            span, whole, finished = search(base, rows, run, count, each, items)
            rate = 3600 * finished / span
            first = first or rate
            told = f"{rate:.1f} | {rate / first:.2f}"
            print(f"| {count} | {finished} of {each * count} | {span:.0f} | {whole:.0f} | {told} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
