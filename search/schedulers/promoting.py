"""ASHA that promotes: a trial waits at its rung, its GPU given back, and is continued once it is among the best.

What the paper describes (Li et al., 2020, algorithm 2). Nobody goes on for having come first, so it suits few GPUs:
there most of a search's time would go into the first trials. Whoever never deserved it is stopped at the end.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.ledger import RUNNING
from search.schedulers.judging import Judging


class Promoting(Judging):
    """Only when it is `exhausted` can those that wait be told that they will not go on."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.chosen: set[str] = set()  # told to go on, and not yet back

    def judge(self, tune_controller: Any, trial: Any, result: dict[str, Any], value: float) -> str:
        name = result["trial"]
        self.chosen.discard(name)
        if result["status"] != RUNNING:
            if result["event"]:
                self.rule.see(name, result["rung"], value)
            return TrialScheduler.STOP
        self.rule.see(name, result["rung"], value)
        waiting = [_name(one) for one in tune_controller.get_trials() if one.status == Trial.PAUSED]
        if self.rule.promotable([*waiting, name]) == name:  # as well at once as after a pause
            return TrialScheduler.CONTINUE
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """One that deserves to go on, else a new one; with nothing left to come, the rest are stopped."""
        trials = tune_controller.get_trials()
        pending = [one for one in trials if one.status == Trial.PENDING]
        paused = {_name(one): one for one in trials if one.status == Trial.PAUSED}
        for one in pending:
            if _name(one) in self.chosen:
                return one
        name = self.rule.promotable(paused)
        if name is None and not pending and self._is_over(trials):
            name = self._last_word(tune_controller, paused)
        if name is None:
            return self.new_one(pending)
        self.chosen.add(name)
        return paused[name]

    def _is_over(self, trials: list[Trial]) -> bool:
        return self.exhausted() and not any(one.status == Trial.RUNNING for one in trials)

    def _last_word(self, tune_controller: Any, paused: dict[str, Trial]) -> str | None:
        """The best of those that wait where none was measured in full; else none, and all that wait are stopped."""
        if not self.rule.seen.get(self.rule.last):
            return self.rule.leader(paused)
        for name, trial in paused.items():
            self.stopped.add(name)
            tune_controller.stop_trial(trial)
        return None


def _name(trial: Trial) -> str:
    return str(trial.config["name"])
