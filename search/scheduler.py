"""ASHA over rungs: of the trials seen at a rung, only the best 1/eta go on (Li et al., 2020, arXiv:1810.05934).

The stopping variant: a trial is judged when it reports, against those that reported before. Unlike Ray's own, its
memory is given at the start, so a resumed search judges by the rungs of the ledger. Knows nothing of recipes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.ledger import RUNNING


class Asha:
    """The rule itself, without Ray: `last` is the number of the last rung, where nothing is left to stop."""

    def __init__(self, eta: float, last: int) -> None:
        self.eta = eta
        self.last = last
        self.seen: dict[int, dict[str, float]] = {}

    def goes_on(self, trial: str, rung: int, score: float) -> bool:
        """Record the score and say whether the trial is among the best ceil(n / eta) of the n seen at this rung."""
        at_rung = self.seen.setdefault(rung, {})
        at_rung[trial] = score
        if rung >= self.last:
            return False
        better = sum(other > score for other in at_rung.values())
        return better < math.ceil(len(at_rung) / self.eta)


class RungScheduler(FIFOScheduler):
    """Asha as Ray Tune's scheduler. Results carry `trial`, `rung`, `score` and `status`."""

    def __init__(self, eta: float, last: int, history: Iterable[tuple[str, int, float]] = ()) -> None:
        super().__init__()
        self.rule = Asha(eta, last)
        self.stopped: set[str] = set()  # trials this rule ended, as opposed to a budget that ran out
        for trial, rung, score in history:
            self.rule.goes_on(trial, rung, score)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != RUNNING:
            return TrialScheduler.STOP
        if self.rule.goes_on(result["trial"], result["rung"], result["score"]):
            return TrialScheduler.CONTINUE
        self.stopped.add(result["trial"])
        return TrialScheduler.STOP
