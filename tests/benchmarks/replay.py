"""Replay searches on the recorded table: `python -m tests.benchmarks.replay --seeds 50 --out FOLDER`.

Each searcher with each scheduler, and with none that stops (`full`), from each seed, until a recipe within 0.005 of the
table's best score is measured in full. Writes replay.md, replay.svg and replay.jsonl, which has each search. What the
default is, is read from `search.space`. A search that ended all it was to find counts as one that takes forever.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from search.schedulers import SCHEDULERS
from search.searchers import SEARCHERS
from search.space import Space
from tests.benchmarks.recorded import SPACE
from tests.benchmarks.replay_report import drawn, in_words
from tests.benchmarks.replayed import FULL, Costs, Held, Target, replay
from tests.benchmarks.synthetic import synthetic
from tests.benchmarks.table import TABLE, Table

IN_ORDER = "grid"  # the searcher that has no chance in it: one seed does


@dataclass(frozen=True)
class Setting:
    """What all searches of one replay share."""

    table: Path | None  # None: made up
    eta: float
    workers: int
    seeds: bool
    pooled: bool = False


class Ran(BaseModel):
    """One search: of one searcher, one scheduler and one seed. `drawing` is what choosing took, in real seconds."""

    searcher: str
    scheduler: str
    seed: int
    found: bool
    seconds: float
    trials: int
    drawing: float


class Order(BaseModel):
    """All recipes of the table one after another in full: seconds until the first good one, and of all."""

    until: float
    all: float
    trials: int
    good: int  # recipes that would do


def table_of(setting: Setting) -> Table:
    return Table.read(setting.table) if setting.table is not None else synthetic(SPACE)


def in_order(table: Table, pooled: bool) -> Order:
    held, target = Held(Costs(table)), Target(table, pooled=pooled)
    seconds, until, trials = 0.0, 0.0, 0
    for number, rows in enumerate(table.in_order(), start=1):
        for row in rows:
            seconds += held.seconds(row)
            if target.is_met(row) and not until:
                until, trials = seconds, number
    return Order(until=until, all=seconds, trials=trials, good=len(target.names))


_costs: dict[Setting, Costs] = {}  # of this process


def search(job: tuple[Setting, str, str, int]) -> Ran:
    setting, searcher, scheduler, seed = job
    costs = _costs.get(setting) or _costs.setdefault(setting, Costs(table_of(setting)))
    begin = time.monotonic()
    one = replay(costs, searcher, scheduler, setting.eta, seed, setting.workers, setting.seeds, setting.pooled)
    drawing = time.monotonic() - begin
    return Ran(
        searcher=searcher,
        scheduler=scheduler,
        seed=seed,
        found=one.found,
        seconds=one.seconds,
        trials=one.trials,
        drawing=drawing,
    )


def run(setting: Setting, pairs: list[tuple[str, str]], seeds: int, processes: int) -> Iterator[Ran]:
    """Every pair from every seed; results as they come."""
    jobs = [
        (setting, searcher, scheduler, seed)
        for seed in range(seeds)
        for searcher, scheduler in pairs
        if searcher != IN_ORDER or not seed
    ]
    if processes == 1:
        yield from map(search, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(search, jobs)


def default(field: str) -> Any:
    return Space.model_fields[field].default


def main(
    out: Annotated[Path, typer.Option(help="where the report goes")],
    seeds: Annotated[int, typer.Option(min=1)] = 50,
    table: Annotated[Path, typer.Option(help="as tests.benchmarks.table writes it")] = TABLE,
    made_up: Annotated[bool, typer.Option("--made-up", help="on a table that nobody measured, to try this")] = False,
    searchers: Annotated[str, typer.Option(help="names with commas between; all without")] = "",
    schedulers: Annotated[str, typer.Option(help="as searchers; full is none that stops")] = "",
    eta: Annotated[float, typer.Option(help="of the schedulers; 0: as a space has it by default")] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="devices")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="of this replay")] = 1,
    seeds_first: Annotated[
        bool, typer.Option("--seeds-first/--no-seeds", help="with or without the recipes that the space tries first")
    ] = True,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="good is what timings of all recipes say, not luck in one's own")
    ] = False,
) -> None:
    setting = Setting(None if made_up else table, eta or default("eta"), workers, seeds_first, pooled)
    by = searchers.split(",") if searchers else list(SEARCHERS)
    under = schedulers.split(",") if schedulers else [*SCHEDULERS, FULL]
    pairs = [(searcher, scheduler) for searcher in by for scheduler in under]
    out.mkdir(parents=True, exist_ok=True)
    ran: list[Ran] = []
    with (out / "replay.jsonl").open("w", encoding="utf-8") as file:
        for one in run(setting, pairs, seeds, processes):
            ran.append(one)
            file.write(one.model_dump_json() + "\n")
            file.flush()
    told = table_of(setting)
    first = (default("searcher"), default("scheduler"))
    about = {
        "eta": setting.eta,
        "workers": workers,
        "seeds": seeds,
        "best": max(told.pooled.values()) if pooled else told.best,
        **told.about,
    }
    text = in_words(ran, in_order(told, pooled), first, about)
    (out / "replay.md").write_text(text, encoding="utf-8")
    (out / "replay.svg").write_text(drawn(ran, first), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
