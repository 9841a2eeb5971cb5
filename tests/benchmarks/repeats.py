"""How far ten evaluations of one model lie apart: `python -m tests.benchmarks.repeats MODEL SPACE --base BASE`.

Each starts from nothing but loaded engines: all answers are asked again and all passes timed again, base and model in
turns. Printed are the scores with their intervals, and the standard deviation of each part over the repeats.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from cluster.resources import find_device
from compressors.artifact import base_artifact
from evaluation.answers import AnswerStore
from search.bases import find_base
from search.bench import Bench, base_of
from search.job import Job
from search.space_file import load_space


def main(
    model: str,
    space: str,
    base: Annotated[str, typer.Option()],
    times: Annotated[int, typer.Option()] = 10,
    seconds: Annotated[float, typer.Option(help="none is begun after these")] = 3600.0,
) -> None:
    begin = time.monotonic()
    spec, folder = load_space(space), find_base(base)
    told = []
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch)
        job = Job(base=folder, base_key=base_artifact(folder).key, run=run, store=run / "store", space=spec,
                  device=find_device(), trials=1)  # fmt: skip
        with Bench(job) as bench:
            print("| score | interval | PerfNorm | SpeedNorm | interval | at fixed lengths | passes | MHz | seconds |")
            print("| --- " * 9 + "|")
            for number in range(times):
                if time.monotonic() - begin > seconds:
                    break
                bench.measurer.asker.store = AnswerStore(run / f"answers-{number}")
                at = time.monotonic()
                measured, baseline, one = bench.measure(base_of(find_base(model)), job.last_rung)
                told.append(one)
                print(
                    f"| {one.score:.4f} | {one.score_low:.4f} – {one.score_high:.4f} | {one.perf_norm:.4f} | "
                    f"{one.speed_norm:+.4f} | {one.speed_low:+.4f} – {one.speed_high:+.4f} | "
                    f"{one.fixed_norm if one.fixed_norm is not None else float('nan'):+.4f} | "
                    f"{max(len(passes) for passes in measured.passes)} | {measured.mhz} / {baseline.mhz} | "
                    f"{time.monotonic() - at:.1f} |",
                    flush=True,
                )
    for name in ("score", "perf_norm", "speed_norm"):
        print(f"{name}: sd {statistics.stdev(getattr(one, name) for one in told):.4f} over {len(told)}")


if __name__ == "__main__":
    typer.run(main)
