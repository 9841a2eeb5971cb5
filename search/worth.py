"""What a trial is judged by: what is known of its final score, not what one rung happened to show.

Speed is that of `search.pace`, of a full measurement, too: its answers are what they are, its timing alone had luck,
and whoever leads a list of noisy scores had most of it. A timing as precise as a GPU's stands nearly as it is. Perf of
few items is weighed with what the trial's likelihood said before, by how precise either is. The ledger keeps all
figures as they were measured. Knows nothing of schedulers and searchers.
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
    """`last` is the rung whose answers stand as they are."""

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
        perf = float(line["perf_norm"]) if line["rung"] >= self.last else self._perf(line)
        return combine(perf, self.pace.speed(line))

    def _perf(self, line: Mapping[str, Any]) -> float:
        own = float(line["perf_norm"])
        near, low, high = self.near.get(line["trial"]), line.get("perf_low"), line.get("perf_high")
        if near is None or line.get("perf_by") == "likelihood" or low is None or high is None:
            return own
        spread = max((high - low) / 2 / Z, FEWEST)
        weight = NEAR**2 / (NEAR**2 + spread**2)
        return weight * own + (1 - weight) * near
