"""How trials an hour grow with GPUs: `python -m tests.benchmarks.scaling --seconds 30 --each 12`.

Runs tests.benchmarks.orchestration for each number of simulated GPUs, with trials of one length that nobody stops, and
compares each with as many times the trials an hour that one GPU did in the same run of this command.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Annotated

import typer


def trials_an_hour(gpus: int, trials: int, seconds: float, searcher: str) -> float:
    words = ["--gpus", gpus, "--trials", trials, "--seconds", seconds, "--eta", 1.0001, "--searcher", searcher]
    command = [sys.executable, "-m", "tests.benchmarks.orchestration", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    found = re.search(r"^([\d.]+) trials an hour", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    return float(found[1])


def main(
    seconds: Annotated[float, typer.Option(help="of work in a trial")] = 30.0,
    each: Annotated[int, typer.Option(min=2, help="trials for each GPU")] = 12,
    sizes: Annotated[
        str, typer.Option(help="numbers of GPUs; the first is what the others are compared with")
    ] = "1,2,4,8,16",
    searcher: Annotated[str, typer.Option(help="a searcher's name")] = "random",
) -> None:
    counts = [int(size) for size in sizes.split(",")]
    found = {gpus: trials_an_hour(gpus, each * gpus, seconds, searcher) for gpus in counts}
    print("| GPUs | trials an hour | of linear |\n| --- | --- | --- |")
    for gpus, rate in found.items():
        print(f"| {gpus} | {rate:.1f} | {rate / (found[counts[0]] * gpus / counts[0]):.3f} |")


if __name__ == "__main__":
    typer.run(main)
