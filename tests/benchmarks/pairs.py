"""How well a SpeedNorm repeats, by two ways to read the same passes: `python -m tests.benchmarks.pairs --times 5`.

The same two models are measured `times` times beside the base, each time with fresh engines, many passes in turns. Told
are SpeedNorm as a ratio of medians and as the median of each pass's ratio to the base's beside it, of the first passes
and of all, and their spread.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import stdev
from typing import Annotated

import typer

from evaluation.record import Subject
from evaluation.speed import Passes, seconds_per_token
from search.bench import Bench
from search.recipe import Recipe
from search.space_file import load_space
from search.start import new_job

RECIPES = ({"step": "drop_layers", "count": 1}, {"step": "quantize", "scheme": "W8A8"})
FIRST = (3, 5, 9)


def passes_of(bench: Bench, recipe: Recipe) -> tuple[Passes, Passes]:
    """All passes of `recipe`'s model and of the base beside it, slice by slice."""
    line = bench.rung(recipe, bench.job.last_rung)
    asker, parts = bench.measurer.asker, bench.measurer.suite.timed_up_to(bench.job.last_rung)
    artifact = bench.store.get(line["artifact"])
    assert artifact is not None  # it was just measured
    subject = Subject(key=artifact.key, folder=artifact.folder)
    mine = [asker.record(part, subject).passes for part in parts]
    return mine, [asker.record(part, asker.base, f"beside {subject.key}").passes for part in parts]


def main(
    times: Annotated[int, typer.Option(min=2)] = 5,
    seconds: Annotated[float, typer.Option(help="of passes, wall time, each time")] = 25.0,
    limit: Annotated[int, typer.Option(help="items of each benchmark")] = 40,
) -> None:
    told: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        space = _space(Path(scratch), seconds, limit)
        for number in range(times):
            job = new_job(str(space), "tiny", Path(scratch) / f"run{number}", store=Path(scratch) / "store")
            with Bench(job) as bench:
                for step in RECIPES:
                    recipe = Recipe.of([step])
                    mine, base = passes_of(bench, recipe)
                    for count in (*FIRST, 0):
                        cut = [[one[: count or None] for one in passes] for passes in (mine, base)]
                        for how, paired in (("medians", False), ("pairs", True)):
                            own, other = seconds_per_token(cut[0], cut[1], paired)
                            told.setdefault((str(recipe), how, count), []).append(1 - own / other)
    print("| recipe | read as | passes | SpeedNorm, each time | standard deviation |\n| --- | --- | --- | --- | --- |")
    for (recipe_name, how, count), found in told.items():
        each = " ".join(f"{one:+.3f}" for one in found)
        print(f"| {recipe_name} | {how} | {count or 'all'} | {each} | {stdev(found):.4f} |")


def _space(scratch: Path, seconds: float, limit: int) -> Path:
    """The demo's evaluation in one rung, with passes until the time is over."""
    import yaml

    spec = load_space("demo").model_dump(mode="json", include={"evaluation", "calibration", "max_model_len"})
    spec["evaluation"] |= {"limit": limit}
    spec |= {"rungs": [{"items": 1.0, "tokens": 1.0}], "passes": 3, "timing_seconds": seconds}
    spec |= {"within": math.ulp(1.0), "lanes": [[step] for step in RECIPES]}
    path = scratch / "space.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


if __name__ == "__main__":
    typer.run(main)
