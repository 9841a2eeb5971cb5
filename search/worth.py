"""What a trial is judged by on its way: what is known of its final score, not what one low rung happened to show.

Speed is that of `search.pace`. Perf of few items is weighed with what the trial's likelihood said before, by how
precise either is. A full measurement is worth its score, but in the end those are compared with each other by the speed
that all timings tell. The ledger keeps all figures as they were measured. Knows nothing of schedulers and searchers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evaluation.score import combine
from search.pace import Pace, Z

NEAR = 0.05  # spread of a final PerfNorm around likelihood's; 0.056 over the recorded table (docs/measurements.md)
FEWEST = 0.01  # spread of PerfNorm that answers to few items are known to have at least


class Worth:
    """`last` is the rung whose scores stand as they are."""

    def __init__(self, pace: Pace, last: int) -> None:
        self.pace = pace
        self.last = last
        self.near: dict[str, float] = {}  # PerfNorm by likelihood, by trial

    def learn(self, line: Mapping[str, Any]) -> None:
        """A ledger line of a finished rung."""
        self.pace.learn(line)
        if line.get("perf_by") == "likelihood":
            self.near[line["trial"]] = line["perf_norm"]

    def of_result(self, result: Mapping[str, Any]) -> float:
        """Of a trial's result, as Tune has it, which is learned from first."""
        if not result["event"]:
            return float(result["score"])
        line = json.loads(result["event"])
        self.learn(line)
        return self.of_line(line)

    def of_line(self, line: Mapping[str, Any]) -> float:
        """Of a finished rung's ledger line."""
        if line["rung"] >= self.last:
            return float(line["score"])
        return combine(self._perf(line), self.pace.speed(line))

    def in_full(self, line: Mapping[str, Any]) -> float:
        """Of a measurement in full, which is compared with other such: its score with the speed that all timings tell.

        Its answers are what they are, its timing alone had luck: whoever leads a list of noisy scores had most of it.
        """
        return combine(float(line["perf_norm"]), self.pace.speed(line))

    def _perf(self, line: Mapping[str, Any]) -> float:
        own = float(line["perf_norm"])
        near, low, high = self.near.get(line["trial"]), line.get("perf_low"), line.get("perf_high")
        if near is None or line.get("perf_by") == "likelihood" or low is None or high is None:
            return own
        spread = max((high - low) / 2 / Z, FEWEST)
        weight = NEAR**2 / (NEAR**2 + spread**2)
        return weight * own + (1 - weight) * near
