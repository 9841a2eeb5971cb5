"""What one search is about, as plain data: written to run.json, handed to every worker, read again by resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import BadInput
from search.space import Space, first_error


class Job(BaseModel):
    """Everything a worker needs to build and measure a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(description="folder of the uncompressed model")
    base_key: str = Field(description="fingerprint of its content")
    run: Path = Field(description="the run folder")
    store: Path = Field(description="where artifacts live")
    space: Space
    device: str = Field(description="cpu or cuda")
    trials: int = Field(ge=1)
    hours: float | None = None
    seed: int = 0
    asked: list[str] = Field(default_factory=list, description="the command line, for people")
    versions: dict[str, str] = Field(default_factory=dict)

    def save(self) -> None:
        path = self.run / "run.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, run: Path) -> Job:
        """Raises `BadInput` when `run` is not a run folder."""
        path = run / "run.json"
        if not path.exists():
            raise BadInput(f"{run} is not a run folder: it has no run.json")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            moved = content | {"run": str(run.resolve())}
            return cls.model_validate(moved)
        except ValidationError as fault:
            raise BadInput(f"{path}: {first_error(fault)}") from fault
        except ValueError as fault:
            raise BadInput(f"{path} is not JSON: {fault}") from fault

    @property
    def last_rung(self) -> int:
        return len(self.space.rungs) - 1
