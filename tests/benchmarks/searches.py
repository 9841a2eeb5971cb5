"""Real searches beside the recorded table: `python -m tests.benchmarks.searches --out FOLDER --seeds 10 --at-once 5`.

Each is `squeeze search` on the table's space and evaluation, with the searcher, eta, trials and finalists that a space
has by default, from a seed of its own, on `--nodes` Ray nodes that have cores of their own, as many as the table's
workers had, and take one trial at a time each. All share a store. What
a search hands over is looked up in the table, by the score that all its timings together give (`Table.pooled`): how far
below the table's best is it? Started again, it goes on with what is not finished.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from search.finals import once_measured
from search.job import Job
from search.ledger import Ledger, ranked, trials_of
from search.recipe import Recipe
from tests.benchmarks.table import Table

OWN = ("eta:", "searcher:", "trials:", "finalists:", "timing_seconds:")  # of the recording; a search has the defaults
WITHIN = 0.01  # of the table's best score


def space_for(table: Table, folder: Path, timing: float) -> Path:
    """The table's space as a search is given it."""
    lines = [line for line in table.about["space"].splitlines() if not line.startswith(OWN)]
    lines.append(f"timing_seconds: {timing:g}")
    path = folder / "space.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start(folder: Path, space: Path, seed: int, nodes: list[list[int]]) -> subprocess.Popen[bytes]:
    """The search from this seed on nodes of these cores, begun or gone on with; its words go to a file."""
    run = folder / f"seed-{seed}"
    known = ["resume", str(run)]
    fresh = ["search", str(space), "--base", "tiny", "--out", str(run), "--seed", str(seed), "--store"]
    fresh.append(str(folder / "store"))
    words = known if (run / "run.json").exists() else fresh
    cores = [",".join(map(str, one)) for one in nodes]
    with (folder / f"seed-{seed}.log").open("a") as log:
        command = [sys.executable, "-m", "tests.benchmarks.search_worker", *cores, "--", *words, "--no-verify"]
        few = os.environ | {"OMP_NUM_THREADS": str(len(nodes[0]))}  # Ray would give it all of the machine's
        return subprocess.Popen(command, stdout=log, stderr=log, env=few)


class Found(NamedTuple):
    """What a search came to; `close` once it is over and handed over a recipe within `WITHIN` of the table's best."""

    told: str
    over: bool = False
    close: bool = False


def found_by(run: Path, table: Table) -> Found:
    if not (run / "run.json").exists():
        return Found("not begun")
    job = Job.load(run)
    trials = trials_of(Ledger(run / "ledger.jsonl").read()).values()
    best = next(iter(ranked(trials, job.last_rung)), None)
    if best is None:
        return Found(f"{len(trials)} trials, none in full")
    recipe = Recipe.of(best.recipe)
    if recipe.hash not in table.pooled:
        return Found(f"{len(trials)} trials; the table has no full measurement of {recipe}")
    over = len(trials) >= job.trials and not once_measured(trials, job.last_rung, job.space.finalists)
    over = over and best.judged is not None and all(trial.end is not None for trial in trials)
    short = max(table.pooled.values()) - table.pooled[recipe.hash]
    told = (
        f"{len(trials)} trials{'' if over else ', NOT over'}, score {best.line['score']:.4f}; in the table "
        f"{table.pooled[recipe.hash]:.4f}, {short:.4f} below its best: {recipe}"
    )
    return Found(told, over, over and short <= WITHIN)


def main(
    out: Annotated[Path, typer.Option(help="where the runs go")],
    seeds: Annotated[int, typer.Option(min=1)] = 10,
    first: Annotated[int, typer.Option(min=0, help="the first of these seeds")] = 0,
    at_once: Annotated[int, typer.Option(min=1, help="searches side by side")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="of each: trials side by side")] = 1,
    cores: Annotated[int, typer.Option(min=1, help="of each node: the table's speeds are those of 2")] = 2,
    timing: Annotated[float, typer.Option(min=0, help="seconds of it on the last rung at most")] = 60.0,
    minutes: Annotated[float, typer.Option(help="end after so long; 0: only when done")] = 0.0,
) -> None:
    begin, here = time.monotonic(), sorted(os.sched_getaffinity(0))
    wide = nodes * cores
    if at_once * wide > len(here):
        raise typer.BadParameter(f"{at_once} searches on {nodes} nodes of {cores} cores each: there are {len(here)}")
    out.mkdir(parents=True, exist_ok=True)
    table = Table.read()
    space = space_for(table, out, timing)
    asked = list(range(first, first + seeds))
    left, running = list(asked), dict[int, subprocess.Popen[bytes]]()
    while left or running:
        for place in range(at_once):
            if place in running and running[place].poll() is not None:
                del running[place]
            if place not in running and left:
                own = [here[at : at + cores] for at in range(place * wide, (place + 1) * wide, cores)]
                running[place] = start(out, space, left.pop(0), own)
        if minutes and time.monotonic() - begin > 60 * minutes:
            break
        time.sleep(1)
    for one in running.values():
        one.terminate()
    for one in running.values():
        one.wait()
    found = [found_by(out / f"seed-{seed}", table) for seed in asked]
    for seed, one in zip(asked, found, strict=True):
        print(f"seed {seed}: {one.told}")
    over = sum(one.over for one in found)
    print(
        f"{sum(one.close for one in found)} of {over} searches that are over end within {WITHIN:g} of the table's best"
    )


if __name__ == "__main__":
    typer.run(main)
