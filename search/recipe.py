"""A recipe: an ordered list of steps, frozen, with one canonical text and one hash.

Knows nothing of how it was chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from compressors.step import Step
from compressors.steps import parse_step


class Recipe:
    """Steps in the order they are applied; no steps is the base model itself."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    @classmethod
    def of(cls, steps: Sequence[dict[str, Any]]) -> Recipe:
        """From plain dicts. Raises `ValueError` naming step, field and value of what does not fit."""
        return cls([parse_step(step) for step in steps])

    def to_list(self) -> list[dict[str, Any]]:
        """Every field of every step, defaults too: a default that changes later must not change an old recipe."""
        return [step.model_dump(mode="json") for step in self.steps]

    @cached_property
    def canonical(self) -> str:
        return json.dumps(self.to_list(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    def at(self, fraction: float) -> Recipe:
        """The recipe as a rung pays for it: `fraction` of its training tokens."""
        return Recipe([step.at(fraction) for step in self.steps])

    def __str__(self) -> str:
        """For tables: each step by name and the fields that differ from their defaults."""
        return " → ".join(_short(step) for step in self.steps) or "base"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


def _short(step: Step) -> str:
    fields = type(step).model_fields
    told = []
    for name, value in step:
        if name == "step" or value == fields[name].default:
            continue
        told.append(_number(value) if isinstance(value, int | float) else str(value))
    return f"{step.step}({', '.join(told)})" if told else step.step


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 10_000 and value % 1000 == 0:
        return f"{value // 1000}k"
    return f"{value:g}" if isinstance(value, float) else str(value)
