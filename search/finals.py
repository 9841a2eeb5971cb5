"""The best are measured again before one of them is called the winner: who, and what comes of it.

Whoever leads a list of noisy scores was also lucky in its timing. The second measurement starts from nothing, answers
and timings alike, and takes the place of the first: it was not chosen for being high. The items are the same, and with
them greedy answers, so luck with the choice of items stays. A worker's engines may be those of the search, warm as they
are. Knows nothing of searchers or schedulers, nor of Ray.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cluster.storage import StorageFault
from evaluation.health import ModelFault
from evaluation.protocol import EngineFault
from search.job import Job
from search.ledger import FAILED, TrialRecord, ranked
from search.recipe import Recipe

ANSWERS_AGAIN = "answers-again"  # in the run folder, apart from what the search has asked


class Tells(Protocol):
    """Where a second measurement, or the fault in its place, is written down; `say` tells people alone."""

    def again(self, line: dict[str, Any]) -> None: ...
    def fell(self, name: str, recipe: list[dict[str, Any]], status: str, reason: str) -> None: ...
    def say(self, text: str) -> None: ...


class Measures(Protocol):
    """What a second measurement asks of a bench."""

    def rung(self, recipe: Recipe, number: int) -> dict[str, Any]: ...
    def close(self) -> None: ...


Value = Callable[[TrialRecord], float]


def once_measured(
    trials: Iterable[TrialRecord], last_rung: int, finalists: int, value: Value | None = None
) -> list[TrialRecord]:
    """Which of the best `finalists`, by what is known now, have been measured only once."""
    return [trial for trial in ranked(trials, last_rung, value)[:finalists] if trial.again is None]


class Finals:
    """Until the best `finalists` all were measured again; one that falls behind lets another one up.

    `records` reads the ledger, which `tells` writes; `value` says what a trial is ranked by. A model that is broken is
    failed by name. Any other fault is none of the model's: the first measurements stand then, nobody else is begun, and
    `resume` tries again. No more than `at_once` are under way: whoever were begun to wait for a worker would be
    measured whatever came of those before.
    """

    def __init__(
        self,
        last_rung: int,
        finalists: int,
        records: Callable[[], Iterable[TrialRecord]],
        tells: Tells,
        at_once: Callable[[], int] = lambda: 1,
        value: Value | None = None,
    ) -> None:
        self.last_rung = last_rung
        self.finalists = finalists
        self.records = records
        self.tells = tells
        self.at_once = at_once
        self.value = value
        self.under_way: dict[str, TrialRecord] = {}
        self.given_up = False
        self._left: list[TrialRecord] | None = None  # nobody knows before the ledger is read: asked ten times a second

    @property
    def over(self) -> bool:
        """Whether nobody is under way, nor to be begun. To be asked only when the trials themselves are over."""
        return not self.under_way and not self._to_begin()

    def begin(self) -> TrialRecord | None:
        """The best of those to be measured again, under way from here on until `told` of; None for now."""
        left = self._to_begin() if len(self.under_way) < self.at_once() else []
        if not left:
            return None
        self.under_way[left[0].name] = left[0]
        return left[0]

    def told(self, name: str, line: dict[str, Any]) -> None:
        """What `measure_again` gave; told a second time, where a process died in between, it is not news."""
        trial = self.under_way.pop(name, None)
        if trial is None:
            return
        self._left = None
        if "fault" not in line:
            self.tells.again(line)
        elif line["broken"]:
            self.tells.fell(name, trial.recipe, FAILED, f"measured again: {line['fault']}")
        else:
            self.given_up = True
            self.tells.say(f"{name} could not be measured again, so first measurements stand: {line['fault']}")

    def forget(self) -> None:
        """Whoever was under way was cut short, and is begun anew."""
        self.under_way.clear()

    def _to_begin(self) -> list[TrialRecord]:
        if self.given_up:
            return []
        if self._left is None:
            self._left = once_measured(self.records(), self.last_rung, self.finalists, self.value)
        return [trial for trial in self._left if trial.name not in self.under_way]


def lost(words: str) -> dict[str, Any]:
    """What to tell of one whose process ended."""
    return {"fault": f"its process ended: {words}", "broken": False}


def measure_again(bench: Measures, job: Job, name: str, recipe: Recipe) -> dict[str, Any]:
    """A ledger line of the event `again`; or what was at fault, and whether the model is broken.

    `bench` keeps its answers in `ANSWERS_AGAIN`. Raises `StorageFault`, which says nothing of the model nor the engine.
    """
    try:
        line = _twice(bench, recipe, job.last_rung)
    except StorageFault:
        raise
    except Exception as fault:  # told to the driver: a search that is done must not end in a traceback
        path = job.run / "logs" / f"{name}-again.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
        words = f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}"
        return {"fault": words, "broken": isinstance(fault, ModelFault)}
    return line | {"event": "again", "trial": name}


def _twice(bench: Measures, recipe: Recipe, last_rung: int) -> dict[str, Any]:
    """A fault of an engine may pass: fresh engines get a second try."""
    try:
        return bench.rung(recipe, last_rung)
    except ModelFault:
        raise
    except EngineFault:
        bench.close()
        return bench.rung(recipe, last_rung)
