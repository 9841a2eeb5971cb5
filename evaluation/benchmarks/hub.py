"""Rows of a published data set: read from the hub, or from a local copy. Knows no benchmark's columns or grades.

`hub:` alone is the place where a benchmark was published (a space may write `hub`, which YAML need not have quoted),
`hub:OWNER/NAME` another copy of it, `hub:FOLDER` a folder laid out as a repository. Gated sets are read with the token
in the environment's HF_TOKEN, by the library itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluation.benchmarks.base import BadData, OutOfReach, check_columns, read_rows

HUB = "hub:"


class Published(BaseModel):
    """Where the rows of a benchmark were published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="OWNER/NAME on the hub; empty where there is no one place")
    split: str = Field(description="the split that is asked")
    config: str | None = Field(None, description="the configuration that holds it, where there are several")
    gated: bool = Field(False, description="whether its terms must be accepted first")
    first: int | None = Field(None, description="rows taken, its first; read as they stream", gt=0)


def rows_of(source: str, columns: tuple[str, ...], published: Published) -> list[dict[str, Any]]:
    """Rows from a file, or from the hub where `source` begins with `hub:`. Raises `BadData`."""
    if not source.startswith(HUB):
        return read_rows(Path(source), columns)
    name = source.removeprefix(HUB).strip() or published.name
    if not name:
        raise BadData(f"{source} names no data set: write hub:OWNER/NAME, or the name of a file")
    rows = _load(name, published)
    if not rows:
        raise BadData(f"the hub's {name} has no rows in its split {published.split}: name another or a file")
    check_columns(rows, columns, f"the hub's {name}")
    return rows


def _load(name: str, published: Published) -> list[dict[str, Any]]:
    import logging

    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings of each try: the last one is told
    try:
        if published.first is not None:
            streamed = load_dataset(name, published.config, split=published.split, streaming=True)
            return [dict(row) for row in streamed.take(published.first)]
        return [dict(row) for row in load_dataset(name, published.config, split=published.split)]
    except (
        OSError,
        ValueError,
        RuntimeError,
        DatasetsError,
    ) as fault:  # not there, gated, out of reach, no such configuration or split
        reason = f"{type(fault).__name__}: {' '.join(str(fault).split())[:160]}"
        remedy = "accept its terms on its page and set HF_TOKEN" if published.gated else "see that it can be reached"
        told = f"the hub does not give {name} ({reason}): {remedy}, or download it and name its file"
        raise OutOfReach(told) from fault
