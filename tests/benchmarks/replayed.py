"""One search on a recorded table, in simulated time: real searcher, real scheduler, no Ray cluster, no work.

`Controller` stands in for Ray Tune's, whose order of doing things it repeats: one trial waits in the queue at all
times, so the next recipe is chosen when the one before begins, not when it ends (test_replay.py compares the two). A
rung takes as long as on record, less what the search's own store holds by then. With several workers, whoever
needs what another builds at that moment gets it for nothing: that wait, and Tune's own seconds, are not in it.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from search.bases import find_base
from search.bench import furthest
from search.budget import Budget
from search.ledger import FAILED, FINISHED, INFEASIBLE, RUNNING
from search.pace import Pace
from search.recipe import Recipe
from search.schedulers import SCHEDULERS
from search.schedulers.judging import Judging
from search.schedulers.stopping import Stopping
from search.searchers import SEARCHERS
from search.tune_searcher import RecipeSearcher
from search.worth import Worth
from tests.benchmarks.table import Row, Table, line_of

FULL = "full"  # as a scheduler: every trial goes to its end
WITHIN = 0.005  # of the table's best score: found


class Part(NamedTuple):
    """A stage as a store sees it; `family` is None for one that trains nothing."""

    key: str
    seconds: float
    family: str | None
    reached: int
    paid: int


class Costs:
    """What each recipe's rung is made of, told once for all searches on one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.furthest = furthest(table.space)
        self.parts = {
            (name, row.rung): _parts(row, recipe)
            for name, rows in table.rows.items()
            for recipe in [Recipe.of(json.loads(rows[0].recipe))]
            for row in rows
        }
        self.rate = _rate([part for parts in self.parts.values() for part in parts if part.family is not None])


class Held:
    """What the store of one search holds by now."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.keys: set[str] = set()
        self.states: dict[str, set[int]] = {}  # by family, from where a training can go on

    def seconds(self, row: Row) -> float:
        """Of this rung, all it builds being held from now on."""
        parts = self.costs.parts[row.recipe_hash, row.rung]
        return row.measuring_seconds + sum(self._build(part) for part in parts if part.key not in self.keys)

    def _build(self, part: Part) -> float:
        """As `compressors.build`: training goes on from the longest before it, and takes over its state."""
        self.keys.add(part.key)
        if part.family is None:
            return part.seconds
        states = self.states.setdefault(part.family, set())
        before = max((reached for reached in states if reached < part.reached), default=0)
        states.discard(before)
        if part.reached < self.costs.furthest:
            states.add(part.reached)
        more = part.reached - before - part.paid  # tokens, than the one on record had to pay
        return max(part.seconds + self.costs.rate * more, 0.0)


def _parts(row: Row, recipe: Recipe) -> list[Part]:
    """Raises `ValueError` where a row has not the stages of its recipe."""
    found, source = [], "base"
    for stage, step in zip(row.stages, recipe.steps if row.stages else (), strict=True):
        family = None
        if stage.reached is not None and step.continues is not None:
            family = f"{source} {step.model_dump_json(exclude={step.continues})}"
        found.append(Part(stage.key, stage.seconds, family, stage.reached or 0, stage.paid or 0))
        source = stage.key
    return found


def _rate(trained: list[Part]) -> float:
    """Seconds that one more token of training takes: the slope through all that were recorded, each once."""
    seen = {part.key: (part.paid, part.seconds) for part in trained}
    if len({paid for paid, _ in seen.values()}) < 2:
        return 0.0
    paid = sum(one for one, _ in seen.values()) / len(seen)
    seconds = sum(one for _, one in seen.values()) / len(seen)
    along = sum((x - paid) * (y - seconds) for x, y in seen.values())
    return max(along / sum((x - paid) ** 2 for x, _ in seen.values()), 0.0)


class Target:
    """To measure in full a recipe as good as the table's best, or nearly: one of those that `names` has by hash.

    `pooled`: as good by the table's pooled scores, in which who was lucky in its timing is not the best.
    """

    def __init__(self, table: Table, within: float = WITHIN, pooled: bool = False) -> None:
        self.last = table.last_rung
        measured = {name: score for name in table.rows if (score := table.final(name)) is not None}
        finals = table.pooled if pooled else measured
        self.enough = max(finals.values()) - within
        self.names = {name for name, score in finals.items() if score >= self.enough}

    def is_met(self, row: Row) -> bool:
        return row.rung == self.last and row.recipe_hash in self.names


@dataclass(eq=False)
class SimulatedTrial:
    """What searchers and schedulers read of Tune's trials."""

    trial_id: str
    config: dict[str, Any]
    hash: str
    status: str = TuneTrial.PENDING
    done: int = 0  # rungs
    begun: bool = False
    since: float = 0.0


@dataclass
class Search:
    """How one search went, until it found what it was to find, or nothing was left to find."""

    found: bool
    seconds: float  # of devices, all workers together
    trials: int  # begun
    results: list[tuple[str, str, int]] = field(default_factory=list)  # trial, recipe's hash and rung, in order


class Controller:
    """Ray Tune's, as far as searchers and schedulers see it; schedulers call `get_trials` and `stop_trial`."""

    def __init__(self, costs: Costs, searcher: RecipeSearcher, scheduler: Judging, workers: int) -> None:
        self.table = costs.table
        self.last = costs.table.last_rung
        self.searcher = searcher
        self.scheduler = scheduler
        self.free = workers
        self.held = Held(costs)
        self.trials: list[SimulatedTrial] = []
        self.events: list[tuple[float, int, SimulatedTrial, Row]] = []
        self.number = 0  # of events: those of one moment come in the order in which they were begun
        self.now = 0.0
        self.busy = 0.0
        self.results: list[tuple[str, str, int]] = []

    def get_trials(self) -> list[SimulatedTrial]:
        return self.trials

    def stop_trial(self, trial: SimulatedTrial) -> None:
        """One that waits."""
        trial.status = TuneTrial.TERMINATED
        self.searcher.on_trial_complete(trial.trial_id)

    def run(self, target: Target) -> Search:
        lost: set[str] = set()  # of the target, who was ended on the way: all of it, and nothing is left to find
        while True:
            self._start()
            if not self.events or lost >= target.names:
                return self._ended(False)
            self.now, _, trial, row = heapq.heappop(self.events)
            self.busy += self.now - trial.since
            self.free += 1
            trial.since = self.now
            self.results.append((trial.config["name"], trial.hash, row.rung))
            if target.is_met(row):
                return self._ended(True)
            self._report(trial, row)
            if trial.status == TuneTrial.TERMINATED and trial.hash in target.names:
                lost.add(trial.hash)

    def _ended(self, found: bool) -> Search:
        running = sum(self.now - trial.since for _, _, trial, _ in self.events)
        return Search(found, self.busy + running, sum(trial.begun for trial in self.trials), self.results)

    def _start(self) -> None:
        standing_in: Any = self
        while True:
            self._queue_one()
            trial: Any = self.scheduler.choose_trial_to_run(standing_in)
            if trial is None:
                return
            trial.status = TuneTrial.PENDING  # chosen, it waits for a worker and is no longer one of the paused
            if not self.free:
                return
            self._begin_rung(trial)

    def _queue_one(self) -> None:
        if self.searcher.exhausted or any(trial.status == TuneTrial.PENDING for trial in self.trials):
            return
        identity = f"{len(self.trials):05d}"
        config = self.searcher.suggest(identity)
        if not self.searcher.exhausted:
            self.trials.append(SimulatedTrial(identity, config, Recipe.of(config["recipe"]).hash))

    def _begin_rung(self, trial: SimulatedTrial) -> None:
        trial.status, trial.begun, trial.since = TuneTrial.RUNNING, True, self.now
        self.free -= 1
        row = self.table.rows[trial.hash][trial.done]
        self.number += 1
        heapq.heappush(self.events, (self.now + self.held.seconds(row), self.number, trial, row))

    def _report(self, trial: SimulatedTrial, row: Row) -> None:
        trial.done += row.status == "ok"
        result = result_of(trial.config["name"], row, self.last)
        decision = self.scheduler.on_trial_result(self, trial, result)
        if decision == TrialScheduler.STOP:
            trial.status = TuneTrial.TERMINATED
            self.searcher.on_trial_complete(trial.trial_id, result)
            return
        self.searcher.on_trial_result(trial.trial_id, result)
        if decision == TrialScheduler.PAUSE:
            trial.status = TuneTrial.PAUSED
        else:
            self._begin_rung(trial)


def result_of(name: str, row: Row, last: int) -> dict[str, Any]:
    """What a trial of this name would report, as `search.trial` does."""
    common = {"trial": name, "rung": row.rung, "reason": row.reason, "recipe_json": row.recipe}
    if row.status != "ok":
        status = INFEASIBLE if row.status == "infeasible" else FAILED
        return common | {"score": 0.0, "status": status, "event": ""}
    line = line_of(name, row)
    status = FINISHED if row.rung == last else RUNNING
    return common | {"score": row.score, "status": status, "event": json.dumps(line)}


def parts_of(
    table: Table, searcher: str, scheduler: str, eta: float, seed: int, seeds: bool = True, trials: int | None = None
) -> tuple[RecipeSearcher, Judging]:
    """A searcher and a scheduler as `search.driver` makes them. Without `seeds` the space's own are not tried first.

    `trials` is the budget: all of the table where it is not given.
    """
    space = table.space if seeds else table.space.model_copy(update={"seeds": ()})
    names = {name for name, rows in table.rows.items() if rows[0].status != "infeasible"}
    proposer = SEARCHERS[searcher](space, seed, lambda recipe: recipe.hash in names)
    worth = Worth(Pace(find_base("tiny", weights=False)), table.last_rung)
    searching = RecipeSearcher(proposer, Budget(trials or len(table.rows)), value=worth.of_line)
    if scheduler == FULL:
        return searching, Stopping(1.0, table.last_rung)  # the best n of n go on
    return searching, SCHEDULERS[scheduler](eta, table.last_rung, (), lambda: searching.exhausted, worth.of_result)


def replay(
    costs: Costs,
    searcher: str,
    scheduler: str,
    eta: float,
    seed: int,
    workers: int = 1,
    seeds: bool = True,
    pooled: bool = False,
) -> Search:
    """One search until it has found a recipe as good as the table's best, or nearly."""
    searching, rule = parts_of(costs.table, searcher, scheduler, eta, seed, seeds)
    return Controller(costs, searching, rule, workers).run(Target(costs.table, pooled=pooled))
