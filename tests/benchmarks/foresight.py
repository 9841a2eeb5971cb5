"""What lower rungs say of the final score, on a recorded table: `python -m tests.benchmarks.foresight TABLE`.

Rank correlations (Spearman) over the recipes measured in full, rung by rung: of PerfNorm, of the score as it was
measured there, and of what a search judges a trial by (`search.worth`), each with the final one. The final score is the
pooled one, in which timings of recipes that look alike stand for one another: a single timing's luck is no target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from scipy.stats import spearmanr

from search.bases import find_base
from search.pace import Pace
from search.worth import Worth
from tests.benchmarks.table import TABLE, Table, line_of


def judged(table: Table, rung: int) -> dict[str, float]:
    """By recipe's hash its worth at `rung`, when all recipes have come so far and none further."""
    worth = Worth(Pace(find_base("tiny", weights=False)), table.last_rung)
    lines = {name: [line_of(name, row) for row in rows[: rung + 1]] for name, rows in table.rows.items()}
    for line in (line for one in lines.values() for line in one):
        worth.learn(line)
    return {name: worth.of_line(one[-1]) for name, one in lines.items()}


def main(
    path: Annotated[Path, typer.Argument(metavar="TABLE")] = TABLE,
) -> None:
    table = Table.read(path)
    names = sorted(table.pooled)
    final = [table.pooled[name] for name in names]
    print(
        f"{len(names)} recipes in full; the score as measured there: {_rank(_column(table, names, -1, 'score'), final)}"
    )
    print("| rung | PerfNorm with the final PerfNorm | score as measured | as judged |\n| --- | --- | --- | --- |")
    for rung in range(table.last_rung):
        known = judged(table, rung)
        perf = _rank(_column(table, names, rung, "perf_norm"), _column(table, names, -1, "perf_norm"))
        raw = _rank(_column(table, names, rung, "score"), final)
        print(f"| {rung + 1} | {perf} | {raw} | {_rank([known[name] for name in names], final)} |")


def _column(table: Table, names: list[str], rung: int, field: str) -> list[float]:
    return [getattr(table.rows[name][rung], field) for name in names]


def _rank(mine: list[float], theirs: list[float]) -> str:
    return f"{spearmanr(mine, theirs).statistic:.2f}"


if __name__ == "__main__":
    typer.run(main)
