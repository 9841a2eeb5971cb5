"""Real searches on `tiny`, ranked by single timings and by all: `python -m tests.benchmarks.real_searches`.

`real_searches.jsonl.xz` holds the ledgers of those that `tests.benchmarks.searches` brought to their end, less what no
ranking reads, by how long the last rung was timed; `--keep FOLDER` adds what is over in a folder of that command's.
What each hands over is looked up in the recorded table (`Table.pooled`), whose recipes were timed on their own: how far
below the table's best is it, and how far was the best that the search measured in full? And how far do measurements of
the same recipe in full lie apart?
"""

from __future__ import annotations

import json
import lzma
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table as Grid

from search.bases import find_base
from search.job import Job
from search.ledger import Ledger, TrialRecord, ranked, trials_of
from search.pace import Pace
from search.recipe import Recipe
from search.worth import Worth
from tests.benchmarks.searches import found_by
from tests.benchmarks.table import Table

LEDGERS = Path(__file__).with_name("real_searches.jsonl.xz")
FIELDS = (
    "event", "trial", "time", "recipe", "recipe_hash", "status", "reason", "values", "rung", "score", "score_low",
    "score_high", "perf_norm", "perf_low", "perf_high", "perf_by", "speed_norm", "speed_low", "speed_high", "speed_by",
    "measuring_seconds", "engine", "device",
)  # fmt: skip
SOUND = 0.4  # the table's scores below come of models that ramble, whose speed is anything
SAME = 1e-9


class Search(NamedTuple):
    """Which of those kept."""

    timing: float  # seconds of it on the last rung at most
    seed: int


class Ranking(NamedTuple):
    """What a search hands over, and how far it lies below the table's best: by single timings, by all, and the best of
    those it measured in full, below which no ranking comes."""

    single: tuple[float, str]
    pooled: tuple[float, str]
    possible: float


class Apart(NamedTuple):
    """Measurements of the same recipe in full: SpeedNorm's standard deviation and its degrees of freedom, and how many
    of how many PerfNorms are the table's."""

    speed: float
    freedom: int
    perf_same: int
    perf_all: int


def read() -> dict[Search, list[dict[str, Any]]]:
    """Ledgers."""
    found = defaultdict(list)
    for line in lzma.decompress(LEDGERS.read_bytes()).decode().splitlines():
        event = json.loads(line)
        found[Search(event.pop("timing"), event.pop("seed"))].append(event)
    return dict(found)


def write(known: dict[Search, list[dict[str, Any]]]) -> None:
    lines = (
        json.dumps({"timing": one.timing, "seed": one.seed} | {key: event[key] for key in FIELDS if key in event})
        for one, events in sorted(known.items())
        for event in events
    )
    LEDGERS.write_bytes(lzma.compress("".join(line + "\n" for line in lines).encode(), preset=9))


def over_in(folder: Path, table: Table) -> dict[Search, list[dict[str, Any]]]:
    """Ledgers of those searches of `tests.benchmarks.searches` that came to their end."""
    runs = sorted(run for run in folder.glob("seed-*") if run.is_dir() and found_by(run, table).over)
    jobs = [Job.load(run) for run in runs]
    return {
        Search(job.space.timing_seconds, job.seed): Ledger(run / "ledger.jsonl").read()
        for job, run in zip(jobs, runs, strict=True)
    }


def ranking(events: list[dict[str, Any]], table: Table) -> Ranking:
    worth = Worth(Pace(find_base("tiny", weights=False)), table.last_rung)
    for event in events:
        if event["event"] == "rung":
            worth.learn(event)
    trials = list(trials_of(events).values())

    def short(trial: TrialRecord) -> float:
        return max(table.pooled.values()) - table.pooled[Recipe.of(trial.recipe).hash]

    def told(full: list[TrialRecord]) -> tuple[float, str]:
        return short(full[0]), str(Recipe.of(full[0].recipe))

    single = ranked(trials, table.last_rung, lambda trial: float(trial.line["score"]))
    pooled = ranked(trials, table.last_rung, lambda trial: worth.of_line(trial.line))
    return Ranking(told(single), told(pooled), min(map(short, single)))


def apart(searches: list[list[dict[str, Any]]], table: Table) -> Apart:
    """How far the same is measured differently."""
    full = [one for events in searches for one in events if one["event"] in ("rung", "again")]
    full = [one for one in full if one["rung"] == table.last_rung]
    speeds = defaultdict(list)
    for one in full:
        if table.pooled.get(one["recipe_hash"], 0.0) > SOUND:
            speeds[one["recipe_hash"]].append(one["speed_norm"])
    freedom = sum(len(same) - 1 for same in speeds.values())
    squares = sum((speed - statistics.mean(same)) ** 2 for same in speeds.values() for speed in same)
    told = [(one["perf_norm"], table.rows[one["recipe_hash"]][-1].perf_norm) for one in full]
    same = sum(other is not None and abs(own - other) < SAME for own, other in told)
    return Apart((squares / freedom) ** 0.5 if freedom else float("nan"), freedom, same, len(told))


def main(
    keep: Annotated[Path | None, typer.Option(help="a folder of tests.benchmarks.searches")] = None,
) -> None:
    table, known = Table.read(), read()
    if keep is not None:
        new = over_in(keep, table)
        write(known | new)
        known = read()
        for search, events in new.items():
            if ranking(events, table) != ranking(known[search], table):
                raise RuntimeError(f"{search} ranks otherwise as kept: FIELDS lacks something that ranking reads")
    grid = Grid("timing", "seed", "by single timings", "by all", "possible", "handed over by all")
    for search, events in sorted(known.items()):
        one = ranking(events, table)
        short = [f"{value:.4f}" for value in (one.single[0], one.pooled[0], one.possible)]
        grid.add_row(f"{search.timing:g}", str(search.seed), *short, one.pooled[1])
    console = Console(width=150)
    console.print(grid)
    for seconds in sorted({search.timing for search in known}):
        found = apart([events for search, events in known.items() if search.timing == seconds], table)
        console.print(
            f"timing {seconds:g}: SpeedNorm of the same recipe deviates by {found.speed:.3f} ({found.freedom} degrees "
            f"of freedom), PerfNorm is the table's in {found.perf_same} of {found.perf_all}"
        )


if __name__ == "__main__":
    typer.run(main)
