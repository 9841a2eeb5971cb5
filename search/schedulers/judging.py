"""What the schedulers share: ASHA's rule, which remembers earlier sittings, and whom it stopped.

Knows nothing of recipes, nor of what becomes of a trial that is not among the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ray.tune.schedulers import FIFOScheduler

from search.schedulers.asha import Asha


class Judging(FIFOScheduler):
    """Results carry `trial`, `rung`, `score` and `status`; `history` is what earlier sittings saw.

    `exhausted` says whether no new trial is to come.
    """

    def __init__(
        self,
        eta: float,
        last: int,
        history: Iterable[tuple[str, int, float]] = (),
        exhausted: Callable[[], bool] = bool,
    ) -> None:
        super().__init__()
        self.rule = Asha(eta, last)
        self.exhausted = exhausted
        self.stopped: set[str] = set()  # trials this rule ended, as opposed to a budget that ran out
        for trial, rung, score in history:
            self.rule.see(trial, rung, score)
