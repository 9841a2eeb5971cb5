"""What searchers make of what they are told."""

import statistics

import pytest

from search.draws import Chance
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers import SEARCHERS
from search.searchers.evolution import Evolution
from search.searchers.nsga2 import INFEASIBLE, Nsga2
from search.searchers.tpe import Tpe
from search.space_file import load_space
from tests.search.searchers.test_conformance import finished, value


@pytest.mark.parametrize("name", ["gp", "tpe", "evolution", "mixed"])
def test_it_finds_good_recipes_sooner_than_blind(name, space):
    def best_after(seed, trials, learn):
        proposer = SEARCHERS[name](space.model_copy(update={"seeds": ()}), seed)
        best = 0.0
        for _ in range(trials):
            recipe = proposer.propose()
            best = max(best, value(recipe))
            proposer.tell(recipe, finished(recipe) if learn else Outcome(status="failed"))
        return best

    learned = statistics.mean(best_after(seed, 14, True) for seed in range(12))
    blind = statistics.mean(best_after(seed, 14, False) for seed in range(12))
    assert learned > blind


def test_an_infeasible_recipe_violates_a_constraint(space):
    for made in (Tpe, Nsga2):
        proposer = made(space)
        recipe = proposer.propose()
        proposer.tell(recipe, Outcome(status="infeasible"))
        study = proposer.study if made is Nsga2 else proposer.study()
        trial = study.trials[0]
        assert (trial.state.name, trial.constraints) == ("COMPLETE", {INFEASIBLE: 1.0})


def test_what_waits_at_a_rung_counts_until_it_went_further(space):
    proposer = Tpe(space)
    recipe = proposer.propose()
    states = []
    for rung, tell in ((0, proposer.see), (1, proposer.see), (2, proposer.tell)):
        tell(recipe, Outcome(status="stopped" if rung < 2 else "finished", rung=rung, score=0.5 + rung / 10))
        (trial,) = proposer.study().trials
        states.append((trial.state.name, trial.intermediate_values, trial.value))
    assert states == [("PRUNED", {0: 0.5}, None), ("PRUNED", {1: 0.6}, None), ("COMPLETE", {}, 0.7)]


def test_what_was_stopped_is_no_parent_beside_what_went_further(space):
    proposer = Evolution(space.model_copy(update={"seeds": ()}))
    early = [Recipe.of([{"step": "drop_layers", "count": count}]) for count in (1, 2, 3)]
    late = [
        Recipe.of([{"step": "quantize", "scheme": "W8A8"}]),
        *(Recipe.of([{"step": "distill", "tokens": 1000, "lr": lr}]) for lr in (1e-4, 2e-4, 3e-4, 4e-4)),
    ]
    for recipe in early:
        proposer.tell(recipe, Outcome(status="stopped", rung=0, score=0.99))
    for recipe in late:
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=0.5))
    parents = []
    proposer.child_of = lambda parent: parents.append(parent) or parent
    for _ in range(40):
        proposer.draw()
    assert set(parents) == set(late)


def test_a_child_differs_by_one_level_of_one_step(space):
    proposer = Evolution(space)
    parent = Recipe.of([{"step": "drop_layers", "count": 2}, {"step": "quantize", "scheme": "W8A8"}])
    before = space.params_of(parent)
    seen = set()
    for _ in range(200):
        after = space.params_of(proposer._changed(parent))
        differing = {name for name in before.keys() & after.keys() if before[name] != after[name]}
        assert len(differing) == 1
        (name,) = differing
        seen.add(name)
        if name == "drop_layers.count":
            assert after[name] in {1, 3}  # neighbours
    assert seen == {"drop_layers.use", "drop_layers.count", "distill.use", "quantize.use", "quantize.scheme"}


def test_the_front_of_three_aims_is_kept(space):
    proposer = Nsga2(space.model_copy(update={"seeds": ()}), seed=1)
    told = [(0.9, 0.1, 100.0), (0.8, 0.2, 100.0), (0.8, 0.1, 90.0), (0.8, 0.1, 100.0), (0.7, 0.3, 200.0)]
    for quality, speed, size in told:
        recipe = proposer.propose()
        figures = {"perf_norm": quality, "speed_norm": speed, "size_bytes": size}
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=(quality + speed) / 2, **figures))
    best = {tuple(trial.values) for trial in proposer.study.best_trials}
    assert best == {told[0], told[1], told[2], told[4]}


@pytest.mark.parametrize("name", ["gp", "tpe", "evolution", "mixed"])
def test_most_proposals_are_its_own_and_not_chance(name):
    """In a space of thousands, long after a model is sure of what it has seen."""
    wide = load_space("contest").model_copy(update={"seeds": ()})
    proposer = SEARCHERS[name](wide, seed=1)
    proposer.chance = Counted()
    for _ in range(60):
        recipe = proposer.propose()
        score = 1 / (1 + len(recipe.steps)) + 0.1 * any(step.step == "quantize" for step in recipe.steps)
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=score))
    assert proposer.chance.recipes <= 6


class Counted:
    """Chance that counts the recipes it was asked for."""

    def __init__(self):
        self.inner, self.recipes, self.first = Chance(7), 0, None

    def suggest_categorical(self, name, choices):
        self.first = self.first or name
        self.recipes += name == self.first
        return self.inner.suggest_categorical(name, choices)

    def suggest_int(self, name, low, high, **more):
        return self.inner.suggest_int(name, low, high, **more)

    def suggest_float(self, name, low, high, **more):
        return self.inner.suggest_float(name, low, high, **more)


def test_one_that_broke_after_a_rung_is_no_parent(space):
    proposer = Evolution(space)
    recipe = proposer.propose()
    proposer.see(recipe, Outcome(status="stopped", rung=0, score=0.9))
    assert recipe.hash in proposer.ends
    proposer.tell(recipe, Outcome(status="failed"))
    assert not proposer.ends


def test_chance_draws_evenly():
    chance = Chance(0)
    counts = [chance.suggest_int("x", 1, 4) for _ in range(4000)]
    assert all(900 < counts.count(number) < 1100 for number in (1, 2, 3, 4))
    assert {chance.suggest_int("x", 10, 30, step=10) for _ in range(100)} == {10, 20, 30}
    logs = [chance.suggest_float("x", 1e-4, 1e-2, log=True) for _ in range(4000)]
    assert 1900 < sum(one < 1e-3 for one in logs) < 2100
    wholes = [chance.suggest_int("x", 1, 1000, log=True) for _ in range(4000)]
    assert {1, 2} <= set(wholes)
    assert max(wholes) <= 1000
    assert 1800 < sum(one < 32 for one in wholes) < 2250
