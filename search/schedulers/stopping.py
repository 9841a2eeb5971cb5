"""ASHA that stops: a trial is judged as it reports, against those before it, and goes on at once or never.

No trial waits, so it suits many GPUs; the first to report always goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.ledger import RUNNING
from search.schedulers.asha import Asha


class Stopping(FIFOScheduler):
    """Results carry `trial`, `rung`, `score` and `status`; `history` is what earlier sittings saw."""

    def __init__(
        self,
        eta: float,
        last: int,
        history: Iterable[tuple[str, int, float]] = (),
        exhausted: Callable[[], bool] = bool,
    ) -> None:
        super().__init__()
        self.rule = Asha(eta, last)
        self.stopped: set[str] = set()  # trials this rule ended, as opposed to a budget that ran out
        for trial, rung, score in history:
            self.rule.see(trial, rung, score)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != RUNNING:
            return TrialScheduler.STOP
        if self.rule.goes_on(result["trial"], result["rung"], result["score"]):
            return TrialScheduler.CONTINUE
        self.stopped.add(result["trial"])
        return TrialScheduler.STOP
