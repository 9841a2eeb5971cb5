"""When no new trial is begun: so many trials, so many device hours, or no gain in the last few. Knows no searcher.

Wall-clock hours are Ray Tune's to keep, since they also end what is running.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from search.ledger import TrialRecord
from search.outcome import Outcome, held_by


class Patience(BaseModel):
    """How long a search goes on without getting better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(ge=1, description="trials in a row, none of which was better")
    gain: float = Field(0.0, ge=0, description="what the best score must rise by to count as better")


class Budget:
    """`device_hours` are those that trials took, of all devices together; a trial holds `devices`."""

    def __init__(
        self,
        trials: int,
        device_hours: float | None = None,
        patience: Patience | None = None,
        history: Iterable[TrialRecord] = (),
        devices: int = 1,
    ) -> None:
        self.trials = trials
        self.device_hours = device_hours
        self.patience = patience
        self.devices = devices
        self.seconds = 0.0
        self.best = 0.0
        self.since = 0  # trials ended since the best was found
        records = list(history)
        self.begun = len(records)
        for record in records:
            for line in record.rungs.values():
                self.spend(line)
            self.waste(record.in_vain)
        for record in sorted((one for one in records if one.end is not None), key=lambda one: one.ended):
            first = record.rungs[max(record.rungs)] if record.rungs else None
            self.end(Outcome.of(record.status, first))

    def spend(self, line: dict[str, Any]) -> None:
        """A finished rung's ledger line."""
        self.seconds += held_by(line) * self.devices

    def waste(self, seconds: float) -> None:
        """What a trial spent on a rung that it did not finish."""
        self.seconds += seconds * self.devices

    def end(self, outcome: Outcome) -> None:
        """A trial ended, its score as measured. Only a full measurement can be a gain; a fault or refusal is no sign
        that none is left."""
        if outcome.status == "finished" and outcome.score is not None:
            better = outcome.score > self.best + (self.patience.gain if self.patience is not None else 0.0)
            self.since = 0 if better else self.since + 1
            self.best = max(self.best, outcome.score) if better else self.best
        elif outcome.status == "stopped":
            self.since += 1

    def over(self) -> str:
        """Why no trial is begun any more; nothing while one may be."""
        if self.begun >= self.trials:
            return f"{self.trials} trials were begun"
        if self.device_hours is not None and self.seconds >= self.device_hours * 3600:
            return f"{self.seconds / 3600:.2f} of {self.device_hours:g} device hours are spent"
        if self.patience is not None and self.since >= self.patience.trials:
            gain = f" by more than {self.patience.gain:g}" if self.patience.gain else ""
            return f"no gain{gain} in {self.since} trials"
        return ""
