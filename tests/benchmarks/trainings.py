"""The table's best recipes, trained anew: `python -m tests.benchmarks.trainings --out FOLDER --workers 1`.

The table has one training of each recipe, and PerfNorm deviates by more between two trainings than the best recipes lie
apart. So those within `--margin` of its best are trained from other seeds, as often as `--seeds` says, and measured in
full; `tiny_trainings.csv` keeps what came of it, and `Table.expected` goes by it. Started again with the same folder,
it goes on where it stopped. Speeds are left to the table: training does not move them, and it has more timings.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from search.recipe import Recipe
from tests.benchmarks.recorded import Recording
from tests.benchmarks.table import TRAININGS, Table

FEW = ({"items": 0.05, "tokens": 0.1}, {"items": 0.1, "tokens": 0.4}, {"items": 1.0, "tokens": 1.0})
"""The table's shares of tokens, since training goes on at each rung; of low rungs nothing but that is wanted."""


def contenders(table: Table, margin: float) -> list[Recipe]:
    """Trained recipes whose score lies within `margin` of the table's best, the best first."""
    least = max(table.pooled.values()) - margin
    names = sorted((name for name, score in table.pooled.items() if score >= least), key=lambda n: -table.pooled[n])
    recipes = [Recipe.of(json.loads(table.rows[name][0].recipe)) for name in names]
    return [recipe for recipe in recipes if any(step.continues for step in recipe.steps)]


def space_of(table: Table, recipes: list[Recipe], seed: int) -> str:
    """The table's space with `recipes` and no other, trained from `seed`."""
    space: dict[str, Any] = yaml.safe_load(table.about["space"])
    for name in ("steps", "seeds"):
        space.pop(name)
    lanes = [recipe.to_list() for recipe in recipes]
    return yaml.safe_dump(space | {"lanes": lanes, "rungs": list(FEW), "trials": len(lanes), "training_seed": seed})


def rows_of(folder: Path, seed: int) -> list[dict[str, Any]]:
    """What the recording of `seed` knows of its last rung."""
    recording = Recording(folder)
    known = recording.known()
    found = []
    for recipe in recording.recipes:
        line = known.get(recipe.hash, {}).get(recording.rungs - 1)
        if line is not None and line["event"] == "rung":
            told = {"recipe": str(recipe), "recipe_hash": recipe.hash, "training_seed": seed}
            found.append(told | {name: round(line[name], 5) for name in ("perf_norm", "speed_norm", "score")})
    return found


def main(
    out: Annotated[Path, typer.Option(help="where the recordings go")],
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each, beside the table's")] = 3,
    margin: Annotated[float, typer.Option(min=0, help="below the table's best")] = 0.03,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    cores: Annotated[int, typer.Option(min=1, help="of each worker")] = 2,
) -> None:
    table = Table.read()
    recipes = contenders(table, margin)
    print(f"{len(recipes)} recipes within {margin:g} of the table's best, {seeds} trainings of each", flush=True)
    rows: list[dict[str, Any]] = []
    for seed in range(1, seeds + 1):
        folder = out / f"training-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        space = out / f"training-{seed}.yaml"
        space.write_text(space_of(table, recipes, seed), encoding="utf-8")
        command = [sys.executable, "-m", "tests.benchmarks.record", "--out", str(folder), "--space", str(space)]
        subprocess.run([*command, "--workers", str(workers), "--cores", str(cores)], check=True)
        rows += rows_of(folder, seed)
        with TRAININGS.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    told = Table.read()
    for recipe in sorted(recipes, key=lambda one: -told.expected[one.hash]):
        trained = ", ".join(f"{value:.3f}" for value in told.trainings[recipe.hash])
        print(f"{told.expected[recipe.hash]:.4f} (table {told.pooled[recipe.hash]:.4f}; {trained}) {recipe}")


if __name__ == "__main__":
    typer.run(main)
