"""A recording's folder: which recipes there are, in which groups, what is known of each, and who works at which.

`space.yaml` is the space as it was when the recording began, `worker-N.jsonl` what worker N found: a line for each
finished rung and each end that is none. Several processes write, each its own file; claims are locks that vanish with
their holder. Knows nothing of models.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from search.errors import BadInput
from search.forms import is_bounded, recipes_of
from search.ledger import FAILED, Ledger
from search.recipe import Recipe
from search.space import Space
from search.space_file import load_space

SPACE = Path(__file__).with_name("table.yaml")


class Recording:
    """The recording in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.space: Space = load_space(str(self.space_path))
        self.recipes = list(recipes_of(self.space))

    @classmethod
    def begin(cls, folder: Path, space: Path) -> Recording:
        """Begin, or go on with, a recording of `space`. Raises `BadInput` where the folder holds another's."""
        kept = folder / "space.yaml"
        if kept.exists() and kept.read_text(encoding="utf-8") != space.read_text(encoding="utf-8"):
            raise BadInput(f"{folder} holds a recording of another space ({kept}): give another --out")
        if not is_bounded(load_space(str(space))):
            raise BadInput(f"{space} has a range without points: nobody can measure all of it")
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(space, kept)
        return cls(folder)

    @property
    def space_path(self) -> Path:
        return self.folder / "space.yaml"

    @property
    def rungs(self) -> int:
        return len(self.space.rungs)

    def groups(self) -> dict[str, list[Recipe]]:
        """Recipes that share what takes longest to build, cheapest first, so that training goes on from training."""
        found: dict[str, list[Recipe]] = {}
        for recipe in self.recipes:
            found.setdefault(trunk(recipe), []).append(recipe)
        return {name: sorted(group, key=_effort) for name, group in found.items()}

    def lines(self) -> list[dict[str, Any]]:
        """All that was found, by every worker of every sitting."""
        return [line for path in sorted(self.folder.glob("worker-*.jsonl")) for line in Ledger(path).read()]

    def forget_failed(self) -> None:
        """Take back the ends that were faults, so that those recipes are tried again. While nobody works here."""
        for path in self.folder.glob("worker-*.jsonl"):
            kept = [line for line in Ledger(path).read() if line.get("status") != FAILED]
            aside = path.with_suffix(".part")
            aside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")
            aside.replace(path)

    def known(self) -> dict[str, dict[int, dict[str, Any]]]:
        """By recipe's hash and rung the last line about it."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for line in self.lines():
            found.setdefault(line["recipe_hash"], {})[line["rung"]] = line
        return found

    def next_rung(self, known: dict[int, dict[str, Any]]) -> int | None:
        """The rung to be measured next of a recipe of which `known` is known; None where it has come to its end."""
        if any(line["event"] == "end" for line in known.values()):
            return None
        number = max(known, default=-1) + 1
        return number if number < self.rungs else None

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold `name` alone among all processes, if nobody does by now."""
        with (self.folder / "claims" / f"{name}.lock").open("a") as file:
            yield _locked(file)


def trunk(recipe: Recipe) -> str:
    """The recipe but for quantization, and whatever the number of tokens it trains: a name for a file."""
    steps = [step for step in recipe.steps if step.step != "quantize"]
    plain = [step.model_dump(mode="json", exclude={step.continues} if step.continues else None) for step in steps]
    return "_".join(str(value) for step in plain for value in step.values() if isinstance(value, str | int | float))


def _effort(recipe: Recipe) -> list[int]:
    return [int(getattr(step, step.continues)) for step in recipe.steps if step.continues]


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def text_of(line: dict[str, Any]) -> str:
    """The line's recipe in its canonical text."""
    return json.dumps(line["recipe"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
