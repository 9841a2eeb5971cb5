"""Numbers between two ends, as a space names them: drawn at any place between, or at so many points."""

from __future__ import annotations

import math
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = int | float
LISTED = 1024  # whole numbers of a range that are gone through one by one; of one with more its two ends stand for it


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Suggests(Protocol):
    """The part of optuna.Trial that a space draws with."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


class Range(BaseModel):
    """Numbers between two ends, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float = Field(description="the least that is drawn; only whole numbers are, of a field that is one")
    high: int | float = Field(description="the most that is drawn")
    step: int = Field(1, ge=1, description="distance between whole numbers that are drawn, counted from low")
    log: bool = Field(False, description="drawn evenly on a logarithmic scale")
    points: int | None = Field(
        None, ge=2, description="only so many numbers, evenly spaced and of three digits, both ends among them: a grid"
    )

    @model_validator(mode="after")
    def _drawable(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low {self.low} and high {self.high} must be finite")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low}")
        if self.step != 1 and (self.log or not self.whole):
            raise ValueError("step goes with whole numbers and without log")
        if self.points is not None and self.step != 1:
            raise ValueError(f"points {self.points} and step {self.step} say the same in two ways: give one of the two")
        if self.points is not None and len(set(self.numbers)) < self.points:
            kind = "whole numbers" if self.whole else "numbers of three digits"
            raise ValueError(
                f"points {self.points}: only {len(set(self.numbers))} {kind} lie so between {self.low} and {self.high}"
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def top(self) -> Number:
        """The most that is drawn: `high`, where steps come to it."""
        return self.low + (self.high - self.low) // self.step * self.step if self.step != 1 else self.high

    @property
    def listed(self) -> bool:
        """Whether all its numbers can be gone through."""
        return self.points is not None or self.low == self.top or self._few

    @property
    def _few(self) -> bool:
        return self.whole and (self.high - self.low) // self.step < LISTED

    @property
    def numbers(self) -> tuple[Number, ...]:
        """All numbers of a range that is `listed`; of another its two ends."""
        if self.points is not None:
            return tuple(self._point(number / (self.points - 1)) for number in range(self.points))
        if self._few:
            return tuple(range(int(self.low), int(self.high) + 1, self.step))
        return self.ends

    @property
    def ends(self) -> tuple[Number, ...]:
        """The two, or one where they are the same."""
        return tuple(dict.fromkeys((self.low, self.top)))

    def _point(self, share: float) -> Number:
        """The number at `share` of the way; rounded, so that a seed can name it."""
        if share in (0, 1):
            return self.high if share else self.low
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.3g}")

    def draw(self, draw: Suggests, name: str) -> Number:
        """A number; with points the draw is of the point's position, whose order a searcher can learn from."""
        if self.points is not None:
            return self.numbers[draw.suggest_int(name, 0, self.points - 1)]
        if self.whole:
            return draw.suggest_int(name, int(self.low), int(self.top), step=self.step, log=self.log)
        return draw.suggest_float(name, float(self.low), float(self.high), log=self.log)

    def drawn_as(self, value: Any) -> Any:
        """What must be drawn for `draw` to give `value`, or what is nearest to it."""
        if self.points is None or not is_number(value):
            return value
        return min(range(self.points), key=lambda number: abs(self.numbers[number] - value))

    def share_of(self, drawn: Any) -> float:
        """How far between its ends lies what was drawn: from 0 to 1."""
        low, high = (0, self.points - 1) if self.points is not None else (self.low, self.top)
        if low == high:
            return 0.5
        if self.log and self.points is None:
            return math.log(drawn / low) / math.log(high / low)
        return float((drawn - low) / (high - low))

    def holds(self, value: Any) -> bool:
        """Whether `draw` can give `value`."""
        if not is_number(value):
            return False
        if self.points is not None:
            return value in self.numbers
        on_step = not self.whole or (value - self.low) % self.step == 0
        return self.low <= value <= self.high and on_step
