"""ASHA that stops: a trial is judged as it reports, against those before it, and goes on at once or never.

No trial waits, so it suits many GPUs; the first to report always goes on.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import TrialScheduler

from search.ledger import RUNNING
from search.schedulers.judging import Judging


class Stopping(Judging):
    """Has no use for `exhausted`: nobody waits for the end."""

    def judge(self, tune_controller: Any, trial: Any, result: dict[str, Any], value: float) -> str:
        if result["status"] != RUNNING:
            return TrialScheduler.STOP
        if self.rule.goes_on(result["trial"], result["rung"], value):
            return TrialScheduler.CONTINUE
        self.stopped.add(result["trial"])
        return TrialScheduler.STOP
