"""What a search hands over in the end, replayed on the table with noise as seen: `python -m tests.benchmarks.endings`.

The table has every recipe timed once, and "the best" in it are those by `Table.pooled`. A real search times each anew,
in fresh engines: here SpeedNorm is the pooled one and deviates at each measurement by what the rung's own interval says
and what lies between engines. PerfNorm of a recipe repeats to the digit; with `--perf`, that of what is trained
deviates once a sitting, since all searches of one share a store. Then the best are measured again, as `search.finals`
does. Simulated time, no Ray, no work.
"""

from __future__ import annotations

import copy
import random
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table as Grid

from evaluation.score import combine
from search.bases import find_base
from search.pace import Pace, spread_of
from search.worth import Worth
from tests.benchmarks.replayed import Controller, Costs, Target, parts_of
from tests.benchmarks.table import Row, Table, line_of

SPEED = 0.017  # standard deviation of SpeedNorm between fresh engines: docs/measurements.md, "Real searches"
PERF = 0.0  # of PerfNorm between trainings: none, the same page
CLOSE = 0.01  # of the table's best
ETA = 1.3


class Ending(NamedTuple):
    """One search: how far what it hands over lies below the table's best, by how many of the best are measured again,
    and by what they are ranked: their scores, or these with the speed that all timings tell. First by the table's own
    scores, then by those that this sitting's trainings truly have."""

    short: dict[tuple[str, int], tuple[float, float]]
    missed: bool  # none of the best was measured in full


@cache
def costs() -> Costs:
    return Costs(Table.read())


class Noise:
    """What measuring says of the table's recipes: `sitting` draws trainings, `seed` what engines do."""

    def __init__(self, sitting: int, seed: int, speed: float, perf: float) -> None:
        self.table = costs().table
        drawn = random.Random(f"{sitting}")
        self.trained = {
            name: drawn.gauss(0, perf) if '"distill"' in rows[0].recipe else 0.0
            for name, rows in sorted(self.table.rows.items())
        }
        self.engines = random.Random(f"{sitting} {seed}")
        self.speed = speed

    def measured(self, row: Row) -> Row:
        """This rung as it comes out this time."""
        if row.score is None or row.recipe_hash not in self.table.pooled:
            return row
        line = line_of(row.recipe_hash, row)
        final = self.table.rows[row.recipe_hash][-1]
        pooled = 2 * self.table.pooled[row.recipe_hash] - (final.perf_norm or 0.0)
        true = pooled if self.table.pooled[row.recipe_hash] else (final.speed_norm or 0.0)  # a score of 0 tells none
        last = row.rung == self.table.last_rung
        off = self.engines.gauss(0, (self.speed**2 + (0.0 if last else spread_of(line) ** 2)) ** 0.5)
        shift = true + off - line["speed_norm"]
        perf = line["perf_norm"] + self.trained[row.recipe_hash]
        return row.model_copy(
            update={
                "perf_norm": perf, "speed_norm": true + off, "score": combine(perf, true + off),
                "speed_low": line["speed_low"] + shift, "speed_high": line["speed_high"] + shift,
            }
        )  # fmt: skip

    def table_now(self) -> Table:
        return Table({name: [self.measured(row) for row in rows] for name, rows in self.table.rows.items()},
                     self.table.about)  # fmt: skip


def ending(sitting: int, seed: int, trials: int, finalists: tuple[int, ...], speed: float, perf: float) -> Ending:
    known = costs()
    noise = Noise(sitting, seed, speed, perf)
    now = copy.copy(known)
    now.table = noise.table_now()
    now.table.__dict__["space"] = known.table.space  # read once: it is a cached property
    searching, rule = parts_of(now.table, "gp", "stopping", ETA, seed, trials=trials)
    target = Target(known.table, pooled=True)
    best, target.names = set(target.names), {"none: to the end of its trials"}
    search = Controller(now, searching, rule, 1).run(target)
    worth = Worth(Pace(find_base("tiny", weights=False)), known.table.last_rung)
    full = {}
    for name, recipe, rung in search.results:
        row = now.table.rows[recipe][rung]
        if row.score is not None:
            worth.learn(line_of(name, row))
            if rung == known.table.last_rung:
                full[name] = row
    again = {name: noise.measured(known.table.rows[row.recipe_hash][-1]) for name, row in full.items()}
    true = {name: score + noise.trained[name] / 2 if score else 0.0 for name, score in known.table.pooled.items()}
    found = {}
    for by in ("score", "pace"):
        for number in finalists:
            won = winner(by, number, full, again, worth).recipe_hash
            found[by, number] = tuple(max(scores.values()) - scores[won] for scores in (known.table.pooled, true))
    measured = {row.recipe_hash for row in full.values()}
    found["the truth", 0] = tuple(  # the best that was measured in full: no ranking does better
        max(scores.values()) - max(scores[name] for name in measured) for scores in (known.table.pooled, true)
    )
    return Ending(found, not best & measured)


def winner(by: str, finalists: int, full: dict[str, Row], again: dict[str, Row], worth: Worth) -> Row:
    """As `Finals` does it: until the best so many were all measured again."""
    now, twice = dict(full), set[str]()
    judge = copy.deepcopy(worth)

    def value(name: str) -> float:
        row = now[name]
        if by == "score":
            return float(row.score or 0.0)
        return combine(row.perf_norm or 0.0, judge.pace.speed(line_of(name, row)))

    while True:
        order = sorted(now, key=value, reverse=True)
        left = [name for name in order[:finalists] if name not in twice]
        if not left:
            return now[order[0]]
        now[left[0]] = again[left[0]]
        twice.add(left[0])


def main(
    sittings: Annotated[int, typer.Option(min=1, help="each with trainings of its own, where --perf is given")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="searches of each")] = 10,
    trials: Annotated[int, typer.Option(min=1)] = 48,
    finalists: Annotated[str, typer.Option(help="numbers of them to compare")] = "0,1,3,5,8",
    speed: Annotated[float, typer.Option(help="SpeedNorm's deviation between engines")] = SPEED,
    perf: Annotated[float, typer.Option(help="PerfNorm's between trainings")] = PERF,
    processes: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    numbers = tuple(int(one) for one in finalists.split(","))
    pairs = [(sitting, seed) for sitting in range(sittings) for seed in range(seeds)]
    one = partial(ending, trials=trials, finalists=numbers, speed=speed, perf=perf)
    with ProcessPoolExecutor(processes) as pool:
        ends = list(pool.map(one, *zip(*pairs, strict=True)))
    grid = Grid("ranked by", "finalists", "best by", f"within {CLOSE:g}", "short, mean", "90 %")
    for key in ends[0].short:
        for number, told in enumerate(("table", "sitting") if perf else ("table",)):
            short = sorted(one.short[key][number] for one in ends)
            close = sum(value <= CLOSE for value in short)
            grid.add_row(key[0], str(key[1]), told, f"{close}/{len(short)}", f"{sum(short) / len(short):.4f}",
                         f"{short[int(0.9 * (len(short) - 1))]:.4f}")  # fmt: skip
    Console().print(grid)
    missed = sum(one.missed for one in ends)
    print(f"{missed} of {len(ends)} measured none of the three best in full")


if __name__ == "__main__":
    typer.run(main)
