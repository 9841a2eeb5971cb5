"""What a benchmark is: items in a published schema, prompts, and a grade for each answer.

Knows nothing of engines: it hands out user turns and grades texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

KINDS = (".jsonl", ".json", ".parquet")  # of files of rows


class BadData(Exception):
    """A benchmark's items are missing, empty or lack columns: the message names file, column and remedy."""


class OutOfReach(BadData):
    """The hub does not give a set of items: gated, unknown there, or no network."""


class Decoding(BaseModel):
    """How answers are sampled; part of an answer's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(description="generated tokens at most")
    temperature: float = Field(0.0, description="0 is greedy")
    exact: bool = Field(False, description="go on past the end of the answer, to exactly max_tokens")

    def as_long(self, tokens: int) -> Decoding:
        """The same, for an answer of exactly `tokens` tokens."""
        return self.model_copy(update={"max_tokens": max(1, tokens), "exact": True})


class Item(BaseModel):
    """One question. `turns` are asked in order, each after the model's answer to the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    turns: tuple[str, ...]
    reference: Any = None  # what `grade` compares with; its form is the benchmark's own
    category: str = ""


class Benchmark(Protocol):
    """One benchmark. Implementations are stateless and listed in `evaluation.benchmarks.BENCHMARKS`."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns its rows must have."""
        ...

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        """Items of published rows, in their order; raises `BadData` naming row and column."""
        ...

    def decoding(self, item: Item) -> Decoding: ...

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """0 (worthless) to 1 (right), from one answer a turn."""
        ...


@runtime_checkable
class Details(Protocol):
    """What a benchmark may add: figures beside its value."""

    def details(self, items: Sequence[Item], answers: Sequence[tuple[str, ...]]) -> dict[str, float]: ...


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of a .jsonl, .json or .parquet file, with every one of `columns` present.

    Raises `BadData` when the file is absent, empty, unreadable or lacks a column.
    """
    import json

    if not path.exists():
        raise BadData(f"no benchmark items at {path}")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (ValueError, OSError) as fault:
        if path.suffix not in KINDS and isinstance(fault, ValueError):
            raise BadData(f"{path} cannot be read: files of rows are {', '.join(KINDS)}") from fault
        raise BadData(f"{path} cannot be read as {path.suffix.lstrip('.') or 'a file'}: {fault}") from fault
    if not isinstance(rows, list) or not rows:
        raise BadData(f"{path} holds no {'rows' if rows == [] else 'list of rows'}")
    check_columns(rows, columns, str(path))
    return rows


def check_columns(rows: list[dict[str, Any]], columns: tuple[str, ...], source: str) -> None:
    """Raise `BadData` naming the first row of `source` that lacks a column."""
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadData(f"{source}, row {number}: a row is a mapping of columns, not {row!r:.40}")
        missing = [column for column in columns if column not in row]
        if missing:
            raise BadData(f"{source}, row {number}: no column {', '.join(missing)}; found {', '.join(row)}")
