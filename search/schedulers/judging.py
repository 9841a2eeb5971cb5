"""What the schedulers share: ASHA's rule, which remembers earlier sittings, whom it stopped, and who is not judged.

Knows nothing of recipes, nor of what becomes of a trial that is not among the best.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.asha import Asha
from search.room import Room


def measured(result: dict[str, Any]) -> float:
    """The score as it was measured."""
    return float(result["score"])


class Judging(FIFOScheduler):
    """Results carry `trial`, `rung`, `score` and `status`, and `again` where one of the best was measured again.

    `history` is what earlier sittings saw. `exhausted` says whether no new trial is to come, `worth` the value that a
    result is judged by: its score, where nothing is given. `room` knows whom a worker that is free is for; without it,
    for whoever waits longest.
    """

    def __init__(
        self,
        eta: float,
        last: int,
        history: Iterable[tuple[str, int, float]] = (),
        exhausted: Callable[[], bool] = bool,
        worth: Callable[[dict[str, Any]], float] = measured,
        room: Room | None = None,
    ) -> None:
        super().__init__()
        self.room = room
        self.rule = Asha(eta, last)
        self.exhausted = exhausted
        self.worth = worth
        self.stopped: set[str] = set()  # trials this rule ended, as opposed to a budget that ran out
        for trial, rung, score in history:
            self.rule.see(trial, rung, score)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Who gets a worker that is free; Tune asks at each step, also while there is none."""
        return self.new_one([one for one in tune_controller.get_trials() if one.status == Trial.PENDING])

    def new_one(self, pending: Sequence[Trial]) -> Trial | None:
        if not pending:
            return None
        return pending[0] if self.room is None else self.room.next_of(pending)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A second measurement ends its trial, unjudged and not remembered: the first one was."""
        if result.get("again"):
            return TrialScheduler.STOP
        value = self.worth(result)  # of every result, also of one that ends its trial: who values them learns from them
        return self.judge(tune_controller, trial, result, value)

    @abstractmethod
    def judge(self, tune_controller: Any, trial: Any, result: dict[str, Any], value: float) -> str:
        """What becomes of a trial whose result is worth `value`, in Tune's words."""
