"""A searcher as Ray Tune sees one: trials named t000, t001, ... across sittings, within a budget; then its finals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from search.budget import Budget
from search.finals import Finals
from search.ledger import FAILED, FINISHED, RUNNING, TrialRecord
from search.outcome import Outcome
from search.recipe import Recipe
from search.retold import Value, outcome_of, retell, scored
from search.room import Room
from search.searchers.proposer import Proposer

MORE = 1.1  # as many results as when full measurements were valued last: each takes a while once there are hundreds
END = -1  # no rung's number: of what a trial spent last, and in vain


class RecipeSearcher(Searcher):
    """`proposer` as Ray Tune's searcher; what earlier sittings saw is told it first.

    When all trials have ended, those that `finals` wants measured again follow. Neither budget nor proposer hears of
    them: they are no trials. `value` is what a ledger line is judged by: its score, where nothing is given. It may
    change with what others show, so full measurements are valued anew as results come: they are compared with each
    other. The budget counts scores as they were measured. No trial is begun while there is no `room`.
    """

    def __init__(
        self,
        proposer: Proposer,
        budget: Budget,
        history: Sequence[TrialRecord] = (),
        finals: Finals | None = None,
        value: Value = scored,
        room: Room | None = None,
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.proposer = proposer
        self.budget = budget
        self.finals = finals
        self.value = value
        self.room = room
        self.running: dict[str, Recipe] = {}  # by Tune's names; those that wait too
        self.seen: dict[str, Outcome] = {}  # of running trials, how far they came
        self.unfinished: list[tuple[str, Recipe]] = []
        self.number = 0  # not the count of trials: a killed driver may have left a gap in their names
        self.exhausted = False  # nothing more to propose: the budget is spent, or the space used up
        self.over = ""  # which of the two, in words
        self.full: dict[str, tuple[Recipe, dict[str, Any]]] = {}  # by name, with the line of a measurement in full
        self.heard = self.valued = 0  # results, and how many there were when full ones were valued last
        self.spent = {(record.name, rung) for record in history for rung in record.rungs}
        for record in history:
            self.number = max(self.number, int(record.name[1:]) + 1)
            if record.status == FINISHED and record.rungs:
                self.full[record.name] = Recipe.of(record.recipe), record.rungs[max(record.rungs)]
            if record.end is None:
                self.unfinished.append((record.name, Recipe.of(record.recipe)))
        retell(proposer, history, value)

    def suggest(self, trial_id: str) -> Any:
        if self.room is None:
            return self._suggest(trial_id)
        found = None if self.room.full else self._suggest(trial_id)
        if isinstance(found, dict):
            self.room.take()
        return found

    def _suggest(self, trial_id: str) -> Any:
        proposed = self._next()
        if proposed is not None:
            name, recipe = proposed
            self.running[trial_id] = recipe
            return {"name": name, "recipe": recipe.to_list()}
        if not self.running and self.finals is not None and (finalist := self.finals.begin()) is not None:
            return {"name": finalist.name, "recipe": finalist.recipe, "again": True}
        # Ray ends idle workers, and with them their warm engines, once a searcher is finished: not while those that
        # run or wait, or finalists yet to come, may need one.
        return Searcher.FINISHED if self.done else None

    @property
    def done(self) -> bool:
        """Whether nothing runs, waits or is left to be begun."""
        return self.exhausted and not self.running and (self.finals is None or self.finals.over)

    def only_finals(self) -> None:
        """No trial is begun any more, and those cut short stay open."""
        self.exhausted = True
        self.unfinished.clear()
        self.running.clear()
        if self.finals is not None:
            self.finals.forget()

    def _next(self) -> tuple[str, Recipe] | None:
        """What earlier sittings left open, then what is proposed within the budget, until there is nothing once."""
        if self.unfinished:
            return self.unfinished.pop(0)
        if self.exhausted:
            return None
        self.over = self.budget.over()
        self._value_anew()
        recipe = self.proposer.propose() if not self.over else None
        if recipe is None:
            self.exhausted = True
            self.over = self.over or "the space is used up"
            return None
        name = f"t{self.number:03d}"
        self.number += 1
        self.budget.begun += 1
        return name, recipe

    def _value_anew(self) -> None:
        """What was measured in full, by all that is known now; with many results only once a tenth has been added."""
        if self.heard <= MORE * self.valued:
            return
        self.valued = self.heard
        for recipe, line in self.full.values():
            self.proposer.correct(recipe, outcome_of(FINISHED, line, self.value))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.running:
            self.heard += 1
            self._spend(result)
        if trial_id in self.running and result["status"] == RUNNING:
            self.seen[trial_id] = self._ended(result)
            self.proposer.see(self.running[trial_id], self.seen[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        recipe = self.running.pop(trial_id, None)
        if recipe is None:
            return
        seen = self.seen.pop(trial_id, None)
        # Tune says no result of a trial that waited and was stopped: what was seen last is how it ended.
        waited = seen if result is None and not error else None
        outcome = waited or self._ended(None if error else result)
        self.heard += 1
        measured = outcome
        if result is not None:
            self._spend(result)
            if outcome.status == FINISHED and result["event"]:
                line = json.loads(result["event"])
                self.full[line["trial"]] = recipe, line
                measured = outcome_of(FINISHED, line)
        self.budget.end(measured)
        self.proposer.tell(recipe, outcome)

    def _spend(self, result: dict[str, Any]) -> None:
        """Each rung's line once: a resumed trial tells its last one again, and Tune the result that ended a trial."""
        if "in_vain" in result and (end := (result["trial"], END)) not in self.spent:
            self.spent.add(end)
            self.budget.waste(result["in_vain"])
        if not result.get("event"):
            return
        line = json.loads(result["event"])
        if (line["trial"], line["rung"]) not in self.spent:
            self.spent.add((line["trial"], line["rung"]))
            self.budget.spend(line)

    def _ended(self, result: dict[str, Any] | None) -> Outcome:
        """What a trial's last result says; a trial that was still running was stopped."""
        if result is None or result["status"] == FAILED:
            return Outcome(status="failed")
        line = json.loads(result["event"]) if result["event"] else None
        return outcome_of(result["status"], line, self.value)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it with its state, and the ledger's writer cannot be: see `save`

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search rebuilds its searcher from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""
