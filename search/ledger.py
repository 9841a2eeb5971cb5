"""The ledger: one JSON line an event, appended and fsynced. What stands here is true; everything else is read from it.

Events: `rung` (a trial finished a rung), `end` (a trial's status and reason, and of one that failed the seconds of the
rung it did not finish; the last one counts), `again` (one of the best was measured in full once more, with answers and
timings of its own; a line like the rung's), `judged` (once a search is over, of all that was measured in full the score
with the speed that all timings tell; it holds until anything is measured). The baseline is part of each that measured.
One writer, the driver; readers tolerate a last line cut off by a crash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.errors import BadInput

FINISHED, STOPPED, INFEASIBLE, FAILED = "finished", "stopped", "infeasible", "failed"
RUNNING = "running"  # not an end: more rungs are to come


class Ledger:
    """Append to and read `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: dict[str, Any]) -> None:
        """Write one line and see it on the disk before returning."""
        line = json.dumps(event | {"time": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False)
        self._end_cut_line()
        with self.path.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
            out.flush()
            os.fsync(out.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All whole events. Raises `BadInput` when a line in the middle is not JSON."""
        if not self.path.exists():
            return []
        events = []
        # What follows the last newline is a line whose writer died while writing it: that event did not happen.
        lines = self.path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                events.append(json.loads(line))
            except ValueError as fault:
                raise BadInput(f"{self.path}, line {number} is not JSON: the ledger was edited or damaged") from fault
        return events

    def _end_cut_line(self) -> None:
        """Drop a half-written last line, so that the next event starts on a line of its own."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as out:
            if out.seek(0, os.SEEK_END) == 0:
                return
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.truncate(self.path.read_bytes().rfind(b"\n") + 1)


class TrialRecord:
    """All that the ledger says of one trial."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rungs: dict[int, dict[str, Any]] = {}
        self.again: dict[str, Any] | None = None
        self.judged: float | None = None  # after all that was measured of it
        self.end: dict[str, Any] | None = None
        self.ended = -1  # place of that event in the ledger

    @property
    def recipe(self) -> list[dict[str, Any]]:
        """The recipe as plain steps."""
        if self.end is not None:
            return list(self.end["recipe"])
        return list(self.rungs[max(self.rungs)]["recipe"])

    @property
    def last(self) -> dict[str, Any] | None:
        """The line of the highest finished rung; of its second measurement where there was one."""
        if self.again is not None:
            return self.again
        return self.rungs[max(self.rungs)] if self.rungs else None

    @property
    def line(self) -> dict[str, Any]:
        """`last` of a trial that has one. Raises `LookupError`."""
        if self.last is None:
            raise LookupError(f"trial {self.name} finished no rung")
        return self.last

    @property
    def standing(self) -> float:
        """What it is ranked by: its score as it was judged in the end, or, until then, as it was measured."""
        return float(self.line["score"]) if self.judged is None else self.judged

    @property
    def in_vain(self) -> float:
        """Seconds spent on a rung that it did not finish; none where nobody knows, as of a process that died."""
        return float(self.end.get("in_vain") or 0.0) if self.end is not None else 0.0

    @property
    def status(self) -> str:
        return str(self.end["status"]) if self.end is not None else RUNNING


def trials_of(events: Iterable[dict[str, Any]]) -> dict[str, TrialRecord]:
    """Events gathered by trial, in the order in which trials first appear."""
    trials: dict[str, TrialRecord] = {}
    judged: dict[str, float] = {}
    for place, event in enumerate(events):
        if event["event"] == "judged":
            judged = event["values"]
            continue
        trial = trials.setdefault(event["trial"], TrialRecord(event["trial"]))
        if event["event"] == "rung":
            trial.rungs[event["rung"]] = event
            judged = {}  # all or none: a score as it was measured is not compared with what others were judged
        elif event["event"] == "again":
            trial.again = event
            judged = {}
        elif event["event"] == "end":
            trial.end, trial.ended = event, place
    for name, value in judged.items():
        trials[name].judged = value
    return trials


def ranked(
    trials: Iterable[TrialRecord], last_rung: int, value: Callable[[TrialRecord], float] | None = None
) -> list[TrialRecord]:
    """Trials measured in full, best first: what was stopped early is not compared with what was not.

    By `value`; where none is given, by what the ledger says of their standing.
    """
    full = [trial for trial in trials if last_rung in trial.rungs and trial.status in {FINISHED, STOPPED}]
    return sorted(full, key=lambda trial: -(trial.standing if value is None else value(trial)))
