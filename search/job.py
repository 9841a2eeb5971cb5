"""What one search is about, as plain data: written to run.json, handed to every worker, read again by resume."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import BadInput, first_error
from search.space import Space


class Job(BaseModel):
    """Everything a worker needs to build and measure a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(description="folder of the uncompressed model")
    base_name: str = Field("", description="what the user called it")
    base_key: str = Field(description="fingerprint of its content")
    run: Path = Field(description="the run folder")
    store: Path = Field(description="where artifacts live")
    space: Space
    device: str = Field(description="cpu or cuda")
    accelerator: str = Field("", description="Ray's name of the GPU that trials ask a cluster for, L4 for one")
    trials: int = Field(ge=1)
    hours: float | None = None
    seed: int = Field(0, description="of the searcher")
    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:8], description="tells this run from others of its name")
    left_out: dict[str, str] | None = Field(None, description="benchmarks not in perf, and why; decided once a run")
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
        if not (run / "ledger.jsonl").exists():
            raise BadInput(f"{run} has lost its ledger.jsonl: bring it back, or search anew with another --out")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it holds no mapping")
            return cls.model_validate(_with_training_seed(_moved(content, run.resolve())))
        except ValidationError as fault:
            raise BadInput(f"{path}: {first_error(fault)}") from fault
        except ValueError as fault:
            raise BadInput(f"{path} is not JSON: {fault}") from fault

    def check_base(self) -> None:
        """Raise `BadInput` unless the base is what it was when the run began."""
        from compressors.artifact import base_artifact

        if not (self.base / "config.json").exists():
            raise BadInput(f"the base of this run, {self.base}, is gone: bring it back")
        if base_artifact(self.base).key != self.base_key:
            raise BadInput(f"the base {self.base} is not what this run began with: its content has changed")

    @property
    def last_rung(self) -> int:
        return len(self.space.rungs) - 1


def _with_training_seed(content: dict[str, Any]) -> dict[str, Any]:
    """Runs begun before spaces had one trained with the search's seed."""
    space = content.get("space")
    if not isinstance(space, dict) or "training_seed" in space:
        return content
    return content | {"space": space | {"training_seed": content.get("seed", 0)}}


def _moved(content: dict[str, Any], run: Path) -> dict[str, Any]:
    """A run folder may be moved as a whole; a store inside it moves along."""
    before, store = Path(content.get("run", run)), Path(content.get("store", run))
    if store.is_relative_to(before):
        store = run / store.relative_to(before)
    return content | {"run": str(run), "store": str(store)}
