"""Who is asked, and what is kept of it: records only."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from evaluation.health import Health
from evaluation.measurement import Timing


class Subject(BaseModel):
    """The model that is asked: its folder, and the key that names its content."""

    model_config = ConfigDict(frozen=True)

    key: str
    folder: Path


class Record(BaseModel):
    """What the store keeps of one slice asked of one model."""

    model_config = ConfigDict(frozen=True)

    texts: list[list[str]] = []  # by item and turn, of the first pass
    tokens: list[list[int]] = []  # as many as `texts`
    health: Health = Health()  # of the first pass
    passes: list[Timing] = []
    fixed: list[Timing] = []  # passes in which each answer was as long as the base's, after the base's words

    def first(self, count: int) -> Record:
        """The record as it was after `count` passes."""
        return self.model_copy(update={"passes": self.passes[:count], "fixed": self.fixed[:count]})


class Pass(NamedTuple):
    """One time through a slice."""

    texts: list[list[str]]
    tokens: list[list[int]]
    timing: Timing
    health: Health
