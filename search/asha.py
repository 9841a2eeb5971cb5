"""ASHA's memory and rule: of the trials seen at a rung, only the best 1/eta go on (Li et al., 2020, arXiv:1810.05934).

Without Ray. Its memory can be given, so a resumed search judges by the rungs of the ledger, which Ray's own cannot.
Knows nothing of recipes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


class Asha:
    """`last` is the number of the last rung, where nothing is left to stop."""

    def __init__(self, eta: float, last: int) -> None:
        self.eta = eta
        self.last = last
        self.seen: dict[int, dict[str, float]] = {}

    def see(self, trial: str, rung: int, score: float) -> None:
        self.seen.setdefault(rung, {})[trial] = score

    def goes_on(self, trial: str, rung: int, score: float) -> bool:
        """Record the score and say whether the trial is among the best ceil(n / eta) of the n seen at this rung."""
        self.see(trial, rung, score)
        if rung >= self.last:
            return False
        better = sum(other > score for other in self.seen[rung].values())
        return better < math.ceil(len(self.seen[rung]) / self.eta)

    def promotable(self, waiting: Iterable[str]) -> str | None:
        """Of the trials that wait, the one to continue: the highest rung first, there the best of its 1/eta.

        Among the best floor(n / eta) of the n seen at its rung; None where none is.
        """
        left = set(waiting)
        for rung in sorted(self.seen, reverse=True):
            if rung >= self.last:
                continue
            ranked = sorted(self.seen[rung], key=lambda trial: -self.seen[rung][trial])
            for trial in ranked[: math.floor(len(ranked) / self.eta)]:
                if trial in left and self.rung_of(trial) == rung:
                    return trial
        return None

    def rung_of(self, trial: str) -> int:
        """The last rung it was seen at. Raises `ValueError` for one that never was."""
        return max(rung for rung, scores in self.seen.items() if trial in scores)

    def leader(self, waiting: Iterable[str]) -> str | None:
        """Of the trials that wait, the best at the highest rung."""
        return max(waiting, key=lambda one: (self.rung_of(one), self.seen[self.rung_of(one)][one]), default=None)
