"""Real searches on `tiny`, ranked by single timings and by all: `python -m tests.benchmarks.real_searches`.

`real_searches.jsonl.xz` holds the ledgers of those that `tests.benchmarks.searches` brought to their end on 2026-11-29,
less what no ranking reads. What each hands over is looked up in the recorded table (`Table.pooled`), whose recipes were
timed on their own: how far below the table's best is it, and how far was the best that the search measured in full?
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as Grid

from search.bases import find_base
from search.ledger import TrialRecord, ranked, trials_of
from search.pace import Pace
from search.recipe import Recipe
from search.worth import Worth
from tests.benchmarks.table import Table

LEDGERS = Path(__file__).with_name("real_searches.jsonl.xz")


class Ranking(NamedTuple):
    """What a search hands over, and how far it lies below the table's best: by single timings, by all, and the best of
    those it measured in full, below which no ranking comes."""

    single: tuple[float, str]
    pooled: tuple[float, str]
    possible: float


def read() -> dict[int, list[dict[str, Any]]]:
    """Ledgers by seed."""
    found = defaultdict(list)
    for line in lzma.decompress(LEDGERS.read_bytes()).decode().splitlines():
        event = json.loads(line)
        found[event.pop("seed")].append(event)
    return dict(found)


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
    pooled = ranked(trials, table.last_rung, lambda trial: worth.in_full(trial.line))
    return Ranking(told(single), told(pooled), min(map(short, single)))


def main() -> None:
    table, grid = Table.read(), Grid("seed", "by single timings", "by all", "possible", "handed over by all")
    for seed, events in read().items():
        one = ranking(events, table)
        grid.add_row(str(seed), f"{one.single[0]:.4f}", f"{one.pooled[0]:.4f}", f"{one.possible:.4f}", one.pooled[1])
    Console(width=140).print(grid)


if __name__ == "__main__":
    main()
