"""The recorded table: all recipes of a space at all rungs, in one Parquet file.

`python -m tests.benchmarks.table FOLDER` writes it from what `tests.benchmarks.record` left in FOLDER. One row is one
recipe at one rung. A stage's seconds are those of whoever built it, so what a search pays depends on what its own store
holds by then. Metadata: `space` (the YAML's text), `machine`, `engine`, `versions` and `dates`.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pydantic import BaseModel, ConfigDict, Field

from search.bases import find_base
from search.forms import recipes_of
from search.pace import Pace
from search.recipe import Recipe
from search.space import Space
from search.space_file import load_space
from search.worth import Worth
from tests.benchmarks.recorded import Recording, text_of

TABLE = Path(__file__).with_name("tiny_table.parquet")
STAGE = pa.struct(
    [
        ("step", pa.string()),
        ("key", pa.string()),
        ("seconds", pa.float64()),
        ("reached", pa.int64()),
        ("paid", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("recipe", pa.string()),
        ("recipe_hash", pa.string()),
        ("rung", pa.int8()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("score_low", pa.float64()),
        ("score_high", pa.float64()),
        ("perf_norm", pa.float64()),
        ("speed_norm", pa.float64()),
        ("perf_low", pa.float64()),
        ("perf_high", pa.float64()),
        ("perf_by", pa.string()),
        ("speed_low", pa.float64()),
        ("speed_high", pa.float64()),
        ("speed_by", pa.string()),
        ("size_bytes", pa.int64()),
        ("measuring_seconds", pa.float64()),
        ("stages", pa.list_(STAGE)),
    ]
)


class Stage(BaseModel):
    """One step of a recipe as it was built: `paid` tokens brought a training to `reached`; None where none is."""

    model_config = ConfigDict(frozen=True)

    step: str
    key: str
    seconds: float
    reached: int | None = None
    paid: int | None = None


class Row(BaseModel):
    """One recipe at one rung. Figures are None where the rung came to another end."""

    model_config = ConfigDict(frozen=True)

    recipe: str = Field(description="its canonical text")
    recipe_hash: str
    rung: int
    status: str = Field(description="ok, infeasible or failed")
    reason: str = ""
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    perf_norm: float | None = None
    speed_norm: float | None = None
    perf_low: float | None = None
    perf_high: float | None = None
    perf_by: str | None = None
    speed_low: float | None = None
    speed_high: float | None = None
    speed_by: str | None = None
    size_bytes: int | None = None
    measuring_seconds: float = Field(description="wall seconds; of a rung that came to another end, all it took")
    stages: tuple[Stage, ...] = ()


class Table:
    """`rows` by recipe's hash, rung after rung; `about` is the file's metadata."""

    def __init__(self, rows: dict[str, list[Row]], about: dict[str, str]) -> None:
        self.rows = rows
        self.about = about

    @classmethod
    def of(cls, rows: list[Row], about: dict[str, str]) -> Table:
        found: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.rung):
            found.setdefault(row.recipe_hash, []).append(row)
        return cls(found, about)

    @classmethod
    def read(cls, path: Path = TABLE) -> Table:
        content = pq.read_table(path)
        metadata = {name.decode(): value.decode() for name, value in (content.schema.metadata or {}).items()}
        return cls.of([Row.model_validate(row) for row in content.to_pylist()], metadata)

    def write(self, path: Path = TABLE) -> None:
        rows = [row.model_dump() for _, recipe in sorted(self.rows.items()) for row in recipe]
        content = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(self.about))
        pq.write_table(content, path, compression="zstd", compression_level=19)

    @cached_property
    def space(self) -> Space:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "space.yaml"
            path.write_text(self.about["space"], encoding="utf-8")
            return load_space(str(path))

    @property
    def last_rung(self) -> int:
        return len(self.space.rungs) - 1

    def in_order(self) -> list[list[Row]]:
        """Each recipe's rows, recipes as the space lists them."""
        return [self.rows[recipe.hash] for recipe in recipes_of(self.space) if recipe.hash in self.rows]

    @cached_property
    def pooled(self) -> dict[str, float]:
        """By recipe's hash its score in full, what its timing says weighed with all others': less of it is luck."""
        worth = Worth(Pace(find_base("tiny", weights=False)), self.last_rung)
        lines = [line_of(name, rows[-1]) for name, rows in self.rows.items() if self.final(name) is not None]
        for line in lines:
            worth.learn(line)
        return {line["trial"]: worth.of_line(line) for line in lines}

    def final(self, name: str) -> float | None:
        """The score of the recipe with this hash, measured in full; None where it never was."""
        row = self.rows[name][-1]
        return row.score if row.rung == self.last_rung else None

    @cached_property
    def best(self) -> float:
        return max(score for name in self.rows if (score := self.final(name)) is not None)

    def lacking(self) -> list[Recipe]:
        """Recipes of the space that are not in it to their end."""
        return [recipe for recipe in recipes_of(self.space) if not self._whole(self.rows.get(recipe.hash, []))]

    def _whole(self, rows: list[Row]) -> bool:
        numbered = [row.rung for row in rows] == list(range(len(rows)))
        return numbered and bool(rows) and (rows[-1].status != "ok" or rows[-1].rung == self.last_rung)


def line_of(trial: str, row: Row) -> dict[str, Any]:
    """A measured row as the ledger's line of a trial whose store held nothing."""
    names = {"rung", "score", "perf_norm", "speed_norm", "speed_low", "speed_high", "speed_by"}
    names |= {"perf_low", "perf_high", "perf_by"}
    figures = row.model_dump(include=names | {"size_bytes", "measuring_seconds"})
    stages = [{"step": one.step, "seconds": one.seconds, "cached": False} for one in row.stages]
    return {"event": "rung", "trial": trial, "recipe": json.loads(row.recipe), "stages": stages} | figures


def row_of(line: dict[str, Any]) -> Row:
    """A line of a recording as a row."""
    common = {"recipe": text_of(line), "recipe_hash": line["recipe_hash"], "rung": line["rung"]}
    if line["event"] == "end":
        told = {name: line[name] for name in ("status", "reason")}
        return Row.model_validate(common | told | {"measuring_seconds": line["wall"]})
    figures = {name: line.get(name) for name in Row.model_fields if name not in {"reason", "status", "stages"}}
    stages = [one | {"seconds": one["made_seconds"]} for one in line["stages"]]
    return Row.model_validate(figures | common | {"status": "ok", "stages": stages})


def table_of(recording: Recording) -> Table:
    """All that `recording` knows of the recipes of its space."""
    known, names = recording.known(), {recipe.hash for recipe in recording.recipes}
    lines = [line for name, one in known.items() if name in names for line in one.values()]
    measured = [line for line in lines if line["event"] == "rung"]
    machines = Counter(f"{line['device']}, {line['cores']} cores a worker" for line in measured)
    dates = sorted(line["time"] for line in lines)
    about = {
        "space": recording.space_path.read_text(encoding="utf-8"),
        "machine": "; ".join(machines),
        "engine": "; ".join(sorted({line["engine"] for line in measured})),
        "versions": json.dumps(measured[-1]["versions"] if measured else {}, sort_keys=True),
        "dates": f"{dates[0]} to {dates[-1]}" if dates else "",
    }
    return Table.of([row_of(line) for line in lines], about)


def main(
    folder: Annotated[Path, typer.Argument(help="of the recording")],
    out: Annotated[Path, typer.Option(help="the file to write")] = TABLE,
    partial: Annotated[bool, typer.Option("--partial", help="also where recipes are lacking")] = False,
) -> None:
    table = table_of(Recording(folder))
    lacking = table.lacking()
    if lacking and not partial:
        raise typer.BadParameter(
            f"{len(lacking)} recipes lack rungs, such as {lacking[0]}: go on with record, or --partial"
        )
    table.write(out)
    ends = Counter(row.status for rows in table.rows.values() for row in rows[-1:])
    told = ", ".join(f"{number} {status}" for status, number in sorted(ends.items()))
    print(f"{out}: {len(table.rows)} recipes ({told}), best {table.best:.4f}, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
