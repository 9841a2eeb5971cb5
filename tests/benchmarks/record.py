"""Measure every recipe of a space in full: `python -m tests.benchmarks.record --out FOLDER --workers 8 --cores 4`.

Each worker is a process on cores of its own, set before it begins: the engine starts as many threads as it sees cores,
less one. All share one store. Started again, with as many workers as one likes, it goes on where it stopped;
`--minutes`, Ctrl-C and SIGTERM end it with what is done kept. `python -m tests.benchmarks.table FOLDER` makes the table
of it. On a machine with GPUs that are not to be used, set CUDA_VISIBLE_DEVICES= to nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from search.errors import BadInput
from tests.benchmarks.recorded import SPACE, Recording

PATIENCE = 60.0  # seconds that a worker has to end its engines
LOOK = 2.0  # seconds between two looks at the workers


def start(
    recording: Recording, number: int, cores: list[int], base: str, own_gpu: bool = False
) -> subprocess.Popen[bytes]:
    """Worker `number`, on `cores` from its first instruction on: a child begins where its parent is."""
    mine = os.sched_getaffinity(0)
    gpu = {"CUDA_VISIBLE_DEVICES": str(number)} if own_gpu else {}
    os.sched_setaffinity(0, cores)
    try:
        with (recording.folder / f"worker-{number}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.record_worker", str(recording.folder), str(number), base],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which tells the workers
                env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | gpu,
            )
    finally:
        os.sched_setaffinity(0, mine)


def end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()  # its engines end when it is gone
            worker.wait()


class Progress:
    """What is done, in words, now and then."""

    def __init__(self, recording: Recording, every: float) -> None:
        self.recording = recording
        self.every = every
        self.began = self.told = time.monotonic()
        self.before = self.rungs_done()

    def rungs_done(self) -> float:
        """Rungs measured, where a recipe that came to another end counts as all of its rungs."""
        known = self.recording.known()
        return sum(self.recording.rungs if self._over(one) else len(one) for one in known.values())

    def _over(self, known: dict[int, dict[str, Any]]) -> bool:
        return self.recording.next_rung(known) is None

    def say(self, now: bool = False) -> None:
        if not now and time.monotonic() - self.told < self.every:
            return
        self.told = time.monotonic()
        known = self.recording.known()
        ends = [line["status"] for one in known.values() for line in one.values() if line["event"] == "end"]
        done, total = sum(map(self._over, known.values())), len(self.recording.recipes)
        rungs, all_rungs = self.rungs_done(), total * self.recording.rungs
        rate = (rungs - self.before) / max(1.0, self.told - self.began)
        more = f", {(all_rungs - rungs) / rate / 60:.0f} minutes left" if rate else ""
        told = "".join(f", {ends.count(status)} {status}" for status in sorted(set(ends)))
        print(
            f"{time.strftime('%H:%M:%S')} {done}/{total} recipes, {rungs}/{all_rungs} rungs{told}, "
            f"{60 * rate:.1f} rungs a minute{more}",
            flush=True,
        )


def main(
    out: Annotated[Path, typer.Option(help="where lines, store and logs go")],
    workers: Annotated[int, typer.Option(min=1)] = 1,
    cores: Annotated[int, typer.Option(help="of each worker; 0: all there are, shared out")] = 0,
    minutes: Annotated[float, typer.Option(help="end after so long, if not done by then; 0: only when done")] = 0.0,
    space: Annotated[Path, typer.Option(help="a space without open ranges")] = SPACE,
    base: Annotated[str, typer.Option(help="the model, as `squeeze search` takes it")] = "tiny",
    own_gpu: Annotated[bool, typer.Option("--own-gpu", help="worker N sees GPU N alone")] = False,
    again: Annotated[bool, typer.Option("--again", help="try recipes again that failed")] = False,
    every: Annotated[float, typer.Option(help="seconds between two lines of progress")] = 30.0,
) -> None:
    begin, here = time.monotonic(), sorted(os.sched_getaffinity(0))
    cores = cores or len(here) // workers
    if cores < 1 or workers * cores > len(here):
        raise typer.BadParameter(f"{workers} workers of {cores} cores do not fit into {len(here)}")
    try:
        recording = Recording.begin(out, space)
    except BadInput as fault:
        raise typer.BadParameter(str(fault)) from fault
    if again:
        recording.forget_failed()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    progress = Progress(recording, every)
    progress.say(now=True)
    started = [start(recording, n, here[n * cores : (n + 1) * cores], base, own_gpu) for n in range(workers)]
    try:
        while any(worker.poll() is None for worker in started):
            if minutes and time.monotonic() - begin > 60 * minutes:
                break
            time.sleep(LOOK)
            progress.say()
    except KeyboardInterrupt:
        print("asked to end", flush=True)
    finally:
        end(started)
    progress.say(now=True)
    fallen = [number for number, worker in enumerate(started) if worker.returncode]
    if fallen:
        print(f"fell: workers {fallen}; see {out}/worker-N.log", flush=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
