"""Searchers under Ray Tune: names, budgets, and what earlier sittings saw."""

import json

import pytest

from search.budget import Budget, Patience
from search.ledger import trials_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.gaussian import Gaussian
from search.searchers.tpe import Tpe
from search.tune_searcher import RecipeSearcher
from tests.search.conftest import end_line, rung_line


def searcher_from(space, events, budget):
    return RecipeSearcher(
        Tpe(space), Budget(budget, history=trials_of(events).values()), list(trials_of(events).values())
    )


def test_a_resumed_search_goes_on_where_it_was(space):
    seeds = [recipe.to_list() for recipe in space.seed_recipes()]
    events = [
        rung_line("t000", 0, 0.6, seeds[0]), end_line("t000", "stopped", seeds[0]),
        rung_line("t001", 0, 0.7, seeds[1]),
    ]  # fmt: skip
    searcher = searcher_from(space, events, budget=4)
    names, recipes = [], []
    while isinstance(config := searcher.suggest(f"tune{len(names)}"), dict):
        names.append(config["name"])
        recipes.append(Recipe.of(config["recipe"]).hash)
    assert names == ["t001", "t002", "t003"]
    assert recipes[0] == Recipe.of(seeds[1]).hash
    assert Recipe.of(seeds[0]).hash not in recipes
    assert len(set(recipes)) == 3


def test_a_failed_trial_teaches_nothing_and_is_not_tried_again(space):
    seed = space.seed_recipes()[0]
    proposer = Tpe(space)
    searcher = RecipeSearcher(proposer, Budget(5), [])
    assert Recipe.of(searcher.suggest("x")["recipe"]) == seed
    searcher.on_trial_complete("x", {"score": 0.0, "status": "failed", "event": ""})
    assert proposer.study().trials == []
    assert seed.hash in proposer.tried


def test_a_score_from_a_lower_rung_is_told_as_such(space):
    first, second = (recipe.to_list() for recipe in space.seed_recipes())
    events = [
        rung_line("t000", 0, 0.9, first), end_line("t000", "stopped", first),
        rung_line("t001", 2, 0.7, second), end_line("t001", "finished", second),
    ]  # fmt: skip
    study = searcher_from(space, events, budget=4).proposer.study()
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    assert study.best_trial.value == 0.7


def test_a_gap_in_the_names_costs_no_trial(space):
    first, second = (recipe.to_list() for recipe in space.seed_recipes())
    events = [end_line("t000", "infeasible", first), end_line("t002", "infeasible", second)]
    searcher = searcher_from(space, events, budget=3)
    assert searcher.suggest("x")["name"] == "t003"
    assert searcher.suggest("y") is None
    assert searcher.exhausted


def test_it_is_finished_when_nothing_runs_or_waits(space):
    """Ray would end the idle workers before: whoever goes on after a pause needs one."""
    searcher = RecipeSearcher(Tpe(space), Budget(2))
    searcher.suggest("x")
    searcher.suggest("y")
    told = {"event": json.dumps(rung_line("t000", 0, 0.6)), "score": 0.6, "rung": 0, "status": "running"}
    searcher.on_trial_result("x", told)
    searcher.on_trial_complete("y", {"score": 0.0, "status": "failed", "event": ""})
    assert searcher.suggest("z") is None
    assert searcher.exhausted
    searcher.on_trial_complete("x")
    assert searcher.suggest("z") == "FINISHED"


def test_what_ended_the_search_stays_said(space):
    """A gain that comes late does not begin it anew: those that waited may have been stopped for good."""
    searcher = RecipeSearcher(Tpe(space), Budget(9, patience=Patience(trials=1)))
    for name in ("x", "y"):
        searcher.suggest(name)
    searcher.budget.since = 1
    assert searcher.suggest("z") is None
    searcher.budget.since = 0
    assert searcher.suggest("z") is None
    assert searcher.over == "no gain in 1 trials"


def test_what_a_trial_ended_with(space):
    ended = RecipeSearcher(Tpe(space), Budget(2))._ended
    line = rung_line("t000", 1, 0.6)
    told = {"event": json.dumps(line), "score": 0.6, "rung": 1}
    figures = {
        "rung": 1,
        "score": 0.6,
        "perf_norm": 1.0,
        "speed_norm": line["speed_norm"],
        "size_bytes": 1000.0,
        "seconds": 1.0,
    }
    assert ended(told | {"status": "running"}) == Outcome(status="stopped", **figures)
    assert ended(told | {"status": "finished"}) == Outcome(status="finished", **figures)
    assert ended(told | {"status": "failed"}) == ended(None) == Outcome(status="failed")
    assert ended({"event": "", "status": "infeasible", "score": 0.0}) == Outcome(status="infeasible")


def test_each_rung_is_paid_once_however_often_it_is_told(space):
    budget = Budget(9, device_hours=100 / 3600)
    searcher = RecipeSearcher(Tpe(space), budget)
    searcher.suggest("x")
    line = rung_line("t000", 0, 0.6, stages=[], measuring_seconds=60.0)
    told = {"event": json.dumps(line), "score": 0.6, "rung": 0, "status": "running"}
    searcher.on_trial_result("x", told)
    searcher.on_trial_result("x", told)
    assert budget.seconds == 60
    searcher.on_trial_result("x", told | {"event": json.dumps(line | {"rung": 1})})
    assert budget.seconds == 120
    assert searcher.suggest("y") is None
    assert "0.03 of 0.0277778 device hours are spent" in searcher.over


def test_what_a_trial_took_in_vain_is_paid_once(space):
    budget = Budget(9, device_hours=1.0)
    searcher = RecipeSearcher(Tpe(space), budget)
    searcher.suggest("x")
    told = {"trial": "t000", "event": "", "score": 0.0, "rung": 0, "status": "failed", "in_vain": 90.0}
    searcher.on_trial_result("x", told)
    searcher.on_trial_complete("x", told)  # Tune tells the result that ended a trial twice
    assert budget.seconds == 90


def test_full_measurements_are_valued_anew_as_results_come_and_the_budget_counts_them_as_measured(space):
    """The first had luck in its timing, which the second showed: it leads no longer."""
    known = []

    def value(line):
        known.append(line["trial"])
        return line["score"] - (0.2 if line["trial"] == "t000" and "t001" in known else 0.0)

    def finish(searcher, name, trial, score):
        searcher.suggest(name)
        told = {"event": json.dumps(rung_line(trial, 2, score)), "trial": trial, "score": score, "status": "finished"}
        searcher.on_trial_complete(name, told)

    budget = Budget(9, patience=Patience(trials=5))
    searcher = RecipeSearcher(Gaussian(space), budget, value=value)
    finish(searcher, "x", "t000", 0.7)
    finish(searcher, "y", "t001", 0.6)
    assert searcher.proposer.best == 0.7
    searcher.suggest("z")
    assert searcher.proposer.best == 0.6
    assert sorted(rungs[2] for _, rungs in searcher.proposer.seen.values()) == pytest.approx([0.5, 0.6])
    assert (budget.best, budget.since) == (0.7, 1)
    resumed = RecipeSearcher(Gaussian(space), Budget(9), list(trials_of(
        [rung_line("t000", 2, 0.7), end_line("t000", "finished")]).values()), value=value)  # fmt: skip
    assert resumed.proposer.best == pytest.approx(0.5)


def test_a_trial_that_waited_ends_with_what_was_seen_last(space):
    searcher = RecipeSearcher(Tpe(space), Budget(9))
    searcher.suggest("x")
    told = {"event": json.dumps(rung_line("t000", 0, 0.6)), "score": 0.6, "rung": 0, "status": "running"}
    searcher.on_trial_result("x", told)
    searcher.on_trial_complete("x")  # as Tune tells of one that was paused
    (trial,) = searcher.proposer.study().trials
    assert (trial.state.name, trial.intermediate_values) == ("PRUNED", {0: 0.6})
