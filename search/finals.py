"""The best are measured again before one of them is called the winner.

Whoever leads a list of noisy scores was also lucky. The second measurement starts from nothing, answers and timings
alike, and takes the place of the first: it was not chosen for being high. Knows nothing of searchers or schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from compressors.step import StepFault
from evaluation.judge import JudgeFault
from evaluation.protocol import EngineFault
from search.job import Job
from search.ledger import FAILED, TrialRecord, ranked
from search.recipe import Recipe

ANSWERS = "answers-again"  # in the run folder, apart from what the search has asked


class Tells(Protocol):
    """Where a second measurement, or the fault in its place, is written down."""

    def again(self, line: dict[str, Any]) -> None: ...
    def fell(self, name: str, recipe: list[dict[str, Any]], status: str, reason: str) -> None: ...


def once_measured(trials: Iterable[TrialRecord], last_rung: int, finalists: int) -> list[TrialRecord]:
    """Which of the best `finalists`, by what is known now, have been measured only once."""
    return [trial for trial in ranked(trials, last_rung)[:finalists] if trial.again is None]


def measure_finalists(
    job: Job, records: Callable[[], Iterable[TrialRecord]], resources: dict[str, float], scribe: Tells
) -> None:
    """Measure again until the best `job.space.finalists` all were; one that falls behind lets another one up.

    `records` reads the ledger, which `scribe` writes. A trial that cannot be measured again is failed by name. Ray
    runs; the actor takes what a trial takes.
    """
    if not once_measured(records(), job.last_rung, job.space.finalists):
        return
    import ray

    takes = {"num_cpus": resources.get("CPU", 1), "num_gpus": resources.get("GPU", 0)}
    referee: Any = ray.remote(Referee).options(**takes).remote(job)
    try:
        while left := once_measured(records(), job.last_rung, job.space.finalists):
            trial = left[0]
            line = ray.get(referee.measure.remote(trial.name, trial.recipe))
            if "fault" in line:
                scribe.fell(trial.name, trial.recipe, FAILED, f"measured again: {line['fault']}")
            else:
                scribe.again(line)
    finally:
        ray.kill(referee)  # its engines end with it


class Referee:
    """Measures recipes in full, with a bench whose answers are its own."""

    def __init__(self, job: Job) -> None:
        from search.bench import Bench

        self.job = job
        self.bench = Bench(job, answers=ANSWERS)

    def measure(self, name: str, recipe: list[dict[str, Any]]) -> dict[str, Any]:
        """A ledger line of the event `again`; or what was at fault."""
        try:
            line = self.bench.rung(Recipe.of(recipe), self.job.last_rung)
        except (StepFault, EngineFault, JudgeFault) as fault:
            return {"fault": f"{type(fault).__name__}: {fault}"}
        return line | {"event": "again", "trial": name}
