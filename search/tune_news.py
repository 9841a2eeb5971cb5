"""Ray Tune's callbacks, handed on to the scribe. The only place where Tune's trial objects are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from search.finals import Finals, lost
from search.ledger import FAILED, RUNNING, STOPPED
from search.recipe import Recipe
from search.schedulers.judging import Judging

if TYPE_CHECKING:
    from search.driver import Scribe


TOLD = 0.005  # a difference between what was measured and what a trial was judged by that is worth a word


class TuneNews(Callback):
    """Runs in the driver, in the order in which Tune processes results."""

    def __init__(self, scribe: Scribe, scheduler: Judging, finals: Finals) -> None:
        self.scribe = scribe
        self.scheduler = scheduler
        self.finals = finals

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not _again(trial):
            self.scribe.watch.started(trial.config["name"], Recipe.of(trial.config["recipe"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if _again(trial):
            self.finals.told(trial.config["name"], json.loads(result["event"]))
        else:
            self.scribe.result(result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if _again(trial):
            return  # its result was told; cut short where the hours ran out, it is begun anew
        result, name = trial.last_result or {}, trial.config["name"]
        status, reason = result.get("status", FAILED), result.get("reason", "it ended without a result")
        if status == RUNNING:
            if name not in self.scheduler.stopped:
                return  # the budget ran out: the trial stays open, and a resumed search goes on with it
            status, reason = STOPPED, self._why(name, result)
        self.scribe.end(name, trial.config["recipe"], status, reason, result.get("in_vain"))

    def _why(self, name: str, result: dict[str, Any]) -> str:
        value = self.scheduler.rule.seen.get(result["rung"], {}).get(name, result["score"])
        told = f"not among the best at rung {result['rung'] + 1}"
        if abs(value - result["score"]) < TOLD:
            return told
        return f"{told}: judged as {value:.4f}, by all that is known of its speed and quality"

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        cause = " ".join(str(trial.get_error() or "its process died").split())[-500:]
        if _again(trial):
            self.finals.told(trial.config["name"], lost(cause))
            return
        self.scribe.end(trial.config["name"], trial.config["recipe"], FAILED, cause)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks with its state; a resumed search makes its own


def _again(trial: Any) -> bool:
    """Whether Tune's trial is one of the best, measured again."""
    return bool(trial.config.get("again"))
