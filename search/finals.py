"""The best are measured again before one of them is called the winner.

Whoever leads a list of noisy scores was also lucky in its timing. The second measurement starts from nothing, answers
and timings alike, and takes the place of the first: it was not chosen for being high. The items are the same, and with
them greedy answers, so luck with the choice of items stays. Knows nothing of searchers or schedulers.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from evaluation.health import ModelFault
from evaluation.protocol import EngineFault
from search.job import Job
from search.ledger import FAILED, TrialRecord, ranked
from search.recipe import Recipe

ANSWERS = "answers-again"  # in the run folder, apart from what the search has asked


class Tells(Protocol):
    """Where a second measurement, or the fault in its place, is written down; `say` tells people alone."""

    def again(self, line: dict[str, Any]) -> None: ...
    def fell(self, name: str, recipe: list[dict[str, Any]], status: str, reason: str) -> None: ...
    def say(self, text: str) -> None: ...


def once_measured(trials: Iterable[TrialRecord], last_rung: int, finalists: int) -> list[TrialRecord]:
    """Which of the best `finalists`, by what is known now, have been measured only once."""
    return [trial for trial in ranked(trials, last_rung)[:finalists] if trial.again is None]


def measure_finalists(
    job: Job, records: Callable[[], Iterable[TrialRecord]], resources: dict[str, float], scribe: Tells
) -> None:
    """Measure again until the best `job.space.finalists` all were; one that falls behind lets another one up.

    `records` reads the ledger, which `scribe` writes. A model that is broken is failed by name. Any other fault is none
    of the model's: the first measurements stand then, and `resume` tries again. Ray runs; the actor takes what a trial
    takes.
    """
    if not once_measured(records(), job.last_rung, job.space.finalists):
        return
    import ray

    takes = {"num_cpus": resources.get("CPU", 1), "num_gpus": resources.get("GPU", 0)}
    referee: Any = ray.remote(Referee).options(**takes).remote(job)
    try:
        while left := once_measured(records(), job.last_rung, job.space.finalists):
            trial = left[0]
            try:
                line = ray.get(referee.measure.remote(trial.name, trial.recipe))
            except ray.exceptions.RayActorError as fault:
                line = {"fault": f"its process ended: {' '.join(str(fault).split())[:300]}", "broken": False}
            if "fault" not in line:
                scribe.again(line)
            elif line["broken"]:
                scribe.fell(trial.name, trial.recipe, FAILED, f"measured again: {line['fault']}")
            else:
                scribe.say(f"{trial.name} could not be measured again, so first measurements stand: {line['fault']}")
                return
    finally:
        ray.kill(referee)  # its engines end with it


class Referee:
    """Measures recipes in full, with a bench whose answers are its own."""

    def __init__(self, job: Job) -> None:
        from search.bench import Bench

        self.job = job
        self.bench = Bench(job, answers=ANSWERS)

    def measure(self, name: str, recipe: list[dict[str, Any]]) -> dict[str, Any]:
        """A ledger line of the event `again`; or what was at fault, and whether the model is broken."""
        try:
            line = self._twice(Recipe.of(recipe))
        except Exception as fault:  # told to the driver: a search that is done must not end in a traceback
            path = self.job.run / "logs" / f"{name}-again.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
            words = f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}"
            return {"fault": words, "broken": isinstance(fault, ModelFault)}
        return line | {"event": "again", "trial": name}

    def _twice(self, recipe: Recipe) -> dict[str, Any]:
        """A fault of an engine may pass: fresh engines get a second try."""
        try:
            return self.bench.rung(recipe, self.job.last_rung)
        except ModelFault:
            raise
        except EngineFault:
            self.bench.close()
            return self.bench.rung(recipe, self.job.last_rung)
