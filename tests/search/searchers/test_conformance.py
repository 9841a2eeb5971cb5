"""What holds for every searcher in the list, whatever it does."""

from typing import get_args

import pytest

from search.forms import recipes_of
from search.ledger import trials_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.retold import retell
from search.searchers import SEARCHERS
from search.space import SearcherName, Space
from search.space_file import load_space
from tests.search.conftest import end_line, rung_line

DROP = {"step": "drop_layers", "count": 1}
SPARING = {"step": "quantize", "scheme": "W4A16", "sensitive": 1, "sensitive_scheme": "W8A8"}


def value(recipe: Recipe) -> float:
    """A made-up score with an interaction: two layers fewer pay only with distillation."""
    fields = {step.step: step for step in recipe.steps}
    drop = getattr(fields.get("drop_layers"), "count", 0)
    loss = {0: 0.0, 1: 0.03, 2: 0.12, 3: 0.3}[drop] * (0.4 if "distill" in fields else 1.0)
    quantized = getattr(fields.get("quantize"), "scheme", None)
    return 0.5 + 0.06 * drop - loss + {None: 0.0, "W8A8": 0.1, "W4A16": 0.02}[quantized]


def finished(recipe: Recipe) -> Outcome:
    score = value(recipe)
    return Outcome(
        status="finished", rung=2, score=score, perf_norm=score, speed_norm=score, size_bytes=1000.0 * (2 - score)
    )


def whole(space: Space) -> Space:
    """A space without ranges and seeds, whose recipes can be counted."""
    steps = tuple(step.model_copy(update={"ranges": {}}) for step in space.steps)
    return space.model_copy(update={"steps": steps, "seeds": ()})


@pytest.fixture(params=sorted(SEARCHERS))
def made(request):
    return SEARCHERS[request.param]


def test_a_space_can_name_each_of_them():
    assert set(get_args(SearcherName)) == set(SEARCHERS)


def test_seeds_come_first_in_their_order(made, space):
    proposer = made(space)
    assert [proposer.propose(), proposer.propose()] == space.seed_recipes()


def test_what_a_trial_advises_is_tried_next_and_once(made, sparing):
    proposer = made(sparing)
    proposer.tell(proposer.propose(), told := finished_with({"quantize.sensitive": 3}))
    advised = proposer.propose()
    assert [getattr(step, "sensitive", None) for step in advised.steps] == [2]  # of 0, 1 and 2 the nearest
    proposer.tell(advised, told)
    assert not proposer.seeds


def test_a_resumed_search_does_not_try_again_what_was_advised(made, sparing):
    before, after = made(sparing), made(sparing)
    for _ in range(2):
        recipe = before.propose()
        for one in (before, after):
            one.tell(recipe, finished_with({"quantize.sensitive": 3}))
    assert after.propose() != recipe


def finished_with(advice: dict[str, int]) -> Outcome:
    return Outcome(status="finished", rung=2, score=0.5, perf_norm=1.0, speed_norm=0.0, size_bytes=1.0, advice=advice)


@pytest.fixture
def sparing(tmp_path, space_text):
    path = tmp_path / "sparing.yaml"
    steps, rest = space_text.split("  - step: distill")[0], space_text.split("evaluation:")[1]
    quantize = "  - {step: quantize, scheme: W4A16, sensitive: [0, 1, 2], sensitive_scheme: "
    condition = "{when: {sensitive: [1, 2]}, values: [bf16, W8A8]}}\n"
    seeds = "seeds: [[{step: quantize, scheme: W4A16, sensitive: 1, sensitive_scheme: W8A8}]]\n"
    path.write_text(f"{steps}{quantize}{condition}{seeds}evaluation:{rest}")
    return load_space(str(path))


def test_advice_of_a_recipe_that_went_no_further_is_not_heeded(made, sparing):
    proposer = made(sparing)
    proposer.tell(proposer.propose(), Outcome(status="stopped", score=0.5, advice={"quantize.sensitive": 3}))
    assert not proposer.seeds


def test_a_resumed_search_heeds_who_ended_first(made, sparing):
    """The ledger is in the order of beginnings; what was advised once is not advised again by another."""
    events = []
    for name, steps in (("t000", [DROP, SPARING]), ("t001", [SPARING]), ("t002", [SPARING | {"sensitive": 2}])):
        line = rung_line(name, 2, 0.5, steps)
        line["stages"] = [{"step": "quantize", "seconds": 1.0, "cached": False, "advice": {"sensitive": 3}}]
        events.append(line)
    ends = [end_line("t001", "finished", [SPARING]), end_line("t000", "finished", [DROP, SPARING])]
    proposer = made(sparing)
    retell(proposer, trials_of([*events, *ends]).values())
    assert not [seed for seed in proposer.seeds if seed not in sparing.seed_recipes()]


def test_a_choice_of_one_is_none(made, tmp_path, space_text):
    path = tmp_path / "single.yaml"
    path.write_text(
        space_text.replace("count: [1, 2, 3]", "count: [2]").replace("scheme: [W8A8, W4A16]", "scheme: [W8A8]")
    )
    proposer = made(load_space(str(path)))
    for _ in range(8):
        if (recipe := proposer.propose()) is not None:
            proposer.tell(recipe, finished(recipe))


def test_values_are_those_of_the_step_however_they_are_written(made, tmp_path, space_text):
    """YAML takes 1e-4 for text, and drop_layers sorts its layers: what was drawn must be found in the space again."""
    text = space_text.replace("{low: 1.0e-4, high: 1.0e-3, log: true}", "[1e-4, 3.0e-4]")
    text = text.replace("    count: [1, 2, 3]", "    by: explicit\n    layers: [[7, 3], [5]]")
    text = text.replace("{step: drop_layers, count: 2}", "{step: drop_layers, by: explicit, layers: [3, 7]}")
    (tmp_path / "written.yaml").write_text(text)
    space = load_space(str(tmp_path / "written.yaml"))
    proposer, found = made(space), set()
    while (recipe := proposer.propose()) is not None:
        found.add(recipe.hash)
        space.params_of(recipe)  # raises where the space does not hold it
        proposer.tell(
            recipe, Outcome(status="finished", rung=2, score=0.5, perf_norm=1.0, speed_norm=0.0, size_bytes=1)
        )
    assert len(found) == 3 * 3 * 3 - 1


def test_no_recipe_twice_until_none_is_left(made, space):
    proposer, found = made(whole(space)), []
    while (recipe := proposer.propose()) is not None:
        found.append(recipe)
        proposer.tell(recipe, finished(recipe))
    assert len({recipe.hash for recipe in found}) == len(found)
    everything = {recipe.hash for recipe in recipes_of(whole(space))}
    assert {recipe.hash for recipe in found} == everything - {Recipe([]).hash}  # the base needs no trial


def test_a_range_is_gone_through_from_step_to_step(made, tmp_path, space_text):
    """4 lies within the ends, and is no step from 1."""
    path = tmp_path / "stepped.yaml"
    path.write_text(space_text.split("  - step: distill")[0].replace("[1, 2, 3]", "{low: 1, high: 4, step: 2}")
                    + "evaluation:" + space_text.split("evaluation:")[1])  # fmt: skip
    proposer, found = made(load_space(str(path))), []
    while (recipe := proposer.propose()) is not None:
        found.append(recipe)
        proposer.tell(recipe, finished(recipe))
    assert sorted(map(str, found)) == ["drop_layers(1)", "drop_layers(3)"]


def test_many_at_once_differ_and_lie_in_the_space(made, space):
    proposer = made(space)
    found = [proposer.propose() for _ in range(10)]
    assert len(set(found)) == 10
    for recipe in found:
        assert space.sample(Replayed(space.params_of(recipe))) == recipe


class Replayed:
    def __init__(self, params):
        self.params = params

    def suggest_categorical(self, name, choices):
        assert self.params[name] in choices
        return self.params[name]

    def suggest_int(self, name, low, high, **_):
        assert low <= self.params[name] <= high
        return self.params[name]

    def suggest_float(self, name, low, high, **_):
        assert low <= self.params[name] <= high
        return self.params[name]


def test_what_cannot_be_built_is_not_proposed_but_as_a_seed(made, space):
    proposer = made(space, feasible=lambda recipe: all(step.step != "quantize" for step in recipe.steps))
    recipes = [proposer.propose() for _ in range(6)]
    assert recipes[:2] == space.seed_recipes()
    assert all(step.step != "quantize" for recipe in recipes[2:] if recipe is not None for step in recipe.steps)


def told(proposer, recipe):
    proposer.tell(recipe, finished(recipe))


def test_one_seed_gives_one_search(made, space):
    def search(seed):
        proposer, found = made(space.model_copy(update={"seeds": ()}), seed), []
        for _ in range(12):
            found.append(proposer.propose())
            told(proposer, found[-1])
        return found

    assert search(3) == search(3)
    if made is not SEARCHERS["grid"]:
        assert search(3) != search(4)


def test_every_end_can_be_told_also_of_what_it_never_proposed(made, space):
    proposer = made(space.model_copy(update={"seeds": ()}))
    earlier = list(recipes_of(whole(space)))[1:6]
    ends = [
        Outcome(status="finished", rung=2, score=0.6, perf_norm=0.9, speed_norm=0.3, size_bytes=10.0),
        Outcome(status="stopped", rung=0, score=0.9, perf_norm=0.9, speed_norm=0.9, size_bytes=10.0),
        Outcome(status="infeasible"),
        Outcome(status="failed"),
        Outcome(status="failed", rung=1, score=0.7),
    ]
    for recipe, outcome in zip(earlier, ends, strict=True):
        proposer.tell(recipe, outcome)
        proposer.tell(recipe, outcome)  # told again by a resumed trial
    found = [proposer.propose() for _ in range(6)]
    assert not set(found) & set(earlier)
    assert None not in found
