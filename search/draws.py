"""Draws by chance alone, as a space asks for them."""

from __future__ import annotations

import math
import random
from typing import Any


class Chance:
    """Answers `search.ranges.Suggests`; `random` may be asked for more."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            ends = math.log(low - 0.5), math.log(high + 0.5)  # each whole number gets the width it rounds from
            return min(max(round(math.exp(self.random.uniform(*ends))), low), high)
        return low + step * self.random.randint(0, (high - low) // step)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low * (high / low) ** self.random.random() if log else self.random.uniform(low, high)
