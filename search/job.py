"""What one search is about, as plain data: written to run.json, handed to every worker, read again by resume."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.storage import Remote, is_uri, joined, mirror_of
from search.errors import BadInput, first_error
from search.home import TELLS, Home, KeptLedger
from search.ledger import Ledger
from search.moved import moved, roots
from search.space import Space

STORE = "store"  # below the run, where no other place is given


class Job(BaseModel):
    """Everything a worker needs to build and measure a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(description="folder of the uncompressed model")
    base_name: str = Field("", description="what the user called it")
    base_key: str = Field(description="fingerprint of its content")
    run: Path = Field(description="the run folder")
    store: Path = Field(description="where artifacts live")
    home: str = Field("", description="the URI where the run is kept; `run` is then this machine's copy")
    store_home: str = Field("", description="the URI where artifacts are kept; `store` is then this machine's copy")
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
    roots: dict[str, str] = Field(default_factory=roots, description="below which its files were: search/moved.py")

    def save(self) -> None:
        path = self.run / "run.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, place: str | Path) -> Job:
        """The run in a folder, or at a URI. Raises `BadInput` where none is, `StorageFault` out of reach."""
        if is_uri(str(place)):
            home = Home(str(place), mirror_of(str(place)))
            home.bring()
            return cls._read(home.folder).here(str(place))
        return cls._read(Path(place)).here()

    def here(self, home: str | None = None) -> Job:
        """The same run on this machine, whose copies may lie elsewhere than on the one that began it.

        `home` is where it was found, if that is not where it was begun: its store moved along if it lay within.
        """
        kept, stored = self.home if home is None else home, self.store_home
        if stored and stored == joined(self.home, STORE):
            stored = joined(kept, STORE)
        run = mirror_of(kept) if kept else self.run
        store = self.store
        if stored:
            store = run / STORE if stored == joined(kept, STORE) else mirror_of(stored)
        return self.model_copy(update={"home": kept, "store_home": stored, "run": run, "store": store})

    @property
    def place(self) -> str:
        """What a user calls the run."""
        return self.home or str(self.run)

    @property
    def name(self) -> str:
        """The last word of its place."""
        return self.home.partition("?")[0].rstrip("/").rpartition("/")[2] if self.home else self.run.name

    def ledger(self) -> Ledger:
        """To be written by the driver alone."""
        path = self.run / "ledger.jsonl"
        return KeptLedger(path, Remote(self.home)) if self.home else Ledger(path)

    def catch_up(self) -> None:
        """Read what another driver wrote until it ended; for who drives the run now."""
        if self.home:
            Home(self.home, self.run).bring_ledger()

    def keep(self, names: Sequence[str] = TELLS) -> None:
        """Have what people read where the run is kept."""
        if self.home:
            Home(self.home, self.run).keep(names)

    @classmethod
    def _read(cls, run: Path) -> Job:
        path = run / "run.json"
        if not path.exists():
            raise BadInput(f"{run} is not a run folder: it has no run.json")
        if not (run / "ledger.jsonl").exists():
            raise BadInput(f"{run} has lost its ledger.jsonl: bring it back, or search anew with another --out")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it holds no mapping")
            content["space"] = moved(content.get("space"), content.get("roots") or {})
            return cls.model_validate(_with_training_seed(_moved(content, run.resolve())))
        except ValidationError as fault:
            raise BadInput(f"{path}: {first_error(fault)}") from fault
        except ValueError as fault:
            raise BadInput(f"{path} is not JSON: {fault}") from fault

    @property
    def devices(self) -> int:
        """How many a trial holds: GPUs, or one machine without any."""
        return self.space.gpus if self.device == "cuda" else 1

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
