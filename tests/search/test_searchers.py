"""The searcher: seeds first, nothing twice, resumable, and better than chance."""

import statistics

from search.forms import recipes_of
from search.ledger import TrialRecord, trials_of
from search.recipe import Recipe
from search.searchers import RecipeSampler, RecipeSearcher
from search.space import Space
from tests.search.conftest import end_line, rung_line


def value(recipe: Recipe) -> float:
    """A made-up score with an interaction: two layers fewer pay only with distillation."""
    fields = {step.step: step for step in recipe.steps}
    drop = getattr(fields.get("drop_layers"), "count", 0)
    loss = {0: 0.0, 1: 0.03, 2: 0.12, 3: 0.3}[drop] * (0.4 if "distill" in fields else 1.0)
    quantized = getattr(fields.get("quantize"), "scheme", None)
    return 0.5 + 0.06 * drop - loss + {None: 0.0, "W8A8": 0.1, "W4A16": 0.02}[quantized]


def test_seeds_come_first(space):
    sampler = RecipeSampler(space)
    assert [sampler.propose(), sampler.propose()] == space.seed_recipes()


def test_no_recipe_twice_until_none_is_left(space: Space):
    choices = space.model_copy(update={"steps": tuple(step for step in space.steps if not step.ranges), "seeds": ()})
    sampler = RecipeSampler(choices)
    found = []
    while (recipe := sampler.propose()) is not None:
        found.append(recipe)
        sampler.tell(recipe, value(recipe))
    assert len({recipe.hash for recipe in found}) == len(found)
    everything = {recipe.hash for recipe in recipes_of(choices)}
    assert {recipe.hash for recipe in found} == everything - {Recipe([]).hash}  # the base needs no trial


def test_what_cannot_be_built_is_not_proposed_but_as_a_seed(space):
    sampler = RecipeSampler(space, feasible=lambda recipe: all(step.step != "quantize" for step in recipe.steps))
    recipes = [sampler.propose() for _ in range(10)]
    assert recipes[:2] == space.seed_recipes()
    assert all(step.step != "quantize" for recipe in recipes[2:] for step in recipe.steps)


def test_it_finds_good_recipes_sooner_than_chance(space):
    def best_after(seed: int, trials: int, learn: bool) -> float:
        sampler = RecipeSampler(space.model_copy(update={"seeds": ()}), seed)
        best = 0.0
        for _ in range(trials):
            recipe = sampler.propose()
            best = max(best, value(recipe))
            sampler.tell(recipe, value(recipe) if learn else 0.0)
        return best

    learned = statistics.mean(best_after(seed, 18, True) for seed in range(12))
    blind = statistics.mean(best_after(seed, 18, False) for seed in range(12))
    assert learned > blind


def searcher_from(space, events, budget):
    return RecipeSearcher(RecipeSampler(space), budget, list(trials_of(events).values()))


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
    sampler = RecipeSampler(space)
    searcher = RecipeSearcher(sampler, 5, [])
    assert Recipe.of(searcher.suggest("x")["recipe"]) == seed
    searcher.on_trial_complete("x", {"score": 0.0, "status": "failed"})
    assert [trial.state.name for trial in sampler.study.trials] == ["FAIL"]
    assert seed.hash in sampler.tried


def test_a_score_from_a_lower_rung_is_told_as_such(space):
    first, second = (recipe.to_list() for recipe in space.seed_recipes())
    events = [
        rung_line("t000", 0, 0.9, first), end_line("t000", "stopped", first),
        rung_line("t001", 2, 0.7, second), end_line("t001", "finished", second),
    ]  # fmt: skip
    study = searcher_from(space, events, budget=4).sampler.study
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    assert study.best_trial.value == 0.7


def test_a_gap_in_the_names_costs_no_trial(space):
    first, second = (recipe.to_list() for recipe in space.seed_recipes())
    events = [end_line("t000", "infeasible", first), end_line("t002", "infeasible", second)]
    searcher = searcher_from(space, events, budget=3)
    assert searcher.suggest("x")["name"] == "t003"
    assert searcher.suggest("y") == "FINISHED"
    assert searcher.exhausted


def test_an_infeasible_recipe_counts_as_worth_nothing(space):
    record: TrialRecord = trials_of([end_line("t000", "infeasible")])["t000"]
    sampler = RecipeSampler(space)
    RecipeSearcher(sampler, 5, [record])
    assert [trial.value for trial in sampler.study.trials] == [0.0]
