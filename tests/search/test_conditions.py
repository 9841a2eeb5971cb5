"""Conditions and grids: what exists only for another choice is drawn, counted and found again only there."""

from collections import Counter

import optuna
import pytest

from search.errors import BadInput
from search.forms import count_of, drawn, is_bounded, recipes_of, steps_of
from search.job import Job
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers import SEARCHERS
from search.space_file import load_space

HEAD = """evaluation:
  benchmarks: {kmmlu_pro: reference:items/kmmlu_pro.jsonl}
calibration: reference:text/calibration.jsonl
steps:
"""
STEPS = """  - step: drop_layers
    optional: true
    by: [last, explicit]
    count: {when: {by: last}, values: [1, 2]}
    layers: {when: {by: [explicit]}, value: [3]}
  - step: distill
    when: {drop_layers.use: true, quantize.use: [true, false]}
    tokens: 1000
    lr: {low: 1.0e-4, high: 1.0e-3, log: true, points: 3}
    fake_quant: {when: {quantize.scheme: W4A16}, values: [W4A16, null]}
  - step: quantize
    optional: true
    scheme: [W8A8, W4A16]
    method: {when: {scheme: [W4A16]}, values: [rtn, gptq]}
    dampening: {when: {method: gptq}, low: 0.01, high: 0.1, points: 2}
"""


@pytest.fixture
def made(tmp_path):
    def make(steps, more=""):
        (tmp_path / "space.yaml").write_text(HEAD + steps + more)
        return load_space(str(tmp_path / "space.yaml"))

    return make


def test_recipes_are_those_whose_conditions_hold(made):
    space = made(STEPS)
    recipes = list(recipes_of(space))
    # quantize: not, W8A8, W4A16 by rtn, by gptq with two dampenings: 5 ways, of which 3 are W4A16
    # without drop_layers: those; with one of its 3 forms: distill with 3 rates, and by W4A16 2 ways to train
    assert len(recipes) == count_of(space) == (5 - 1) + 3 * 3 * (2 + 3 * 2)
    assert len({recipe.hash for recipe in recipes}) == len(recipes)
    assert is_bounded(space)
    for recipe in recipes:
        fields = {step.step: step for step in recipe.steps}
        assert ("distill" in fields) == ("drop_layers" in fields)
        drop, quantize = fields.get("drop_layers"), fields.get("quantize")
        assert drop is None or (drop.layers == (3,)) == (drop.by == "explicit") == (drop.count is None)
        assert quantize is None or (quantize.dampening is not None) == (quantize.method == "gptq")
        assert quantize is None or quantize.scheme == "W4A16" or quantize.method == "rtn"
        if "distill" in fields and getattr(quantize, "scheme", None) != "W4A16":
            assert fields["distill"].fake_quant is None


def test_every_recipe_is_found_again_by_its_draws_and_no_draw_more_is_asked(made):
    space = made(STEPS)
    for recipe in recipes_of(space):
        params = space.params_of(recipe)
        study = optuna.create_study()
        study.enqueue_trial(params)
        trial = study.ask()
        assert space.sample(trial) == recipe
        assert trial.params == params
    dropped = Recipe.of([{"step": "quantize", "scheme": "W8A8"}])
    assert space.params_of(dropped) == {"drop_layers.use": False, "quantize.use": True, "quantize.scheme": "W8A8"}


@pytest.mark.parametrize(
    "steps",
    [
        [{"step": "quantize", "scheme": "W8A8", "method": "gptq"}],
        [{"step": "drop_layers", "by": "last", "count": 1}],
        [{"step": "quantize", "scheme": "W4A16", "dampening": 0.01}],
        [{"step": "drop_layers", "by": "last", "count": 1}, {"step": "distill", "tokens": 1000, "lr": 2e-4}],
    ],
)
def test_a_recipe_that_breaks_a_condition_is_outside(made, steps):
    with pytest.raises(BadInput, match="outside the space"):
        made(STEPS).params_of(Recipe.of(steps))


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_searcher_keeps_to_the_conditions_and_finds_every_recipe_once(made, searcher):
    space = made(STEPS)
    sampler = SEARCHERS[searcher](space)
    found = []
    while (recipe := sampler.propose()) is not None:
        found.append(recipe)
        score = 0.1 * len(recipe.steps)
        told = Outcome(status="finished", rung=2, score=score, perf_norm=1, speed_norm=score, size_bytes=9)
        sampler.tell(recipe, told)
    held = {recipe.hash for recipe in recipes_of(space)}
    assert len({recipe.hash for recipe in found}) == len(found)
    assert {recipe.hash for recipe in found} == held


def test_the_steps_of_a_space_are_in_forms_that_come_about(made):
    forms = [step for step in steps_of(made(STEPS)) if step.step == "quantize"]
    assert len(forms) == 4
    assert not [one for one in forms if one.scheme == "W8A8" and one.method != "rtn"]


def test_conditions_survive_run_json_and_older_ones_are_read(made, tmp_path):
    space = made(STEPS)
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=3)
    job.save()
    (tmp_path / "ledger.jsonl").touch()
    assert Job.load(tmp_path) == job
    older = job.model_dump(mode="json")
    older["space"]["steps"] = [
        {"step": "nf4", "optional": True, "fixed": {}, "choices": {}, "ranges": {}},
        {"step": "distill", "optional": False, "fixed": {"tokens": 1000}, "choices": {},
         "ranges": {"lr": {"low": 1e-4, "high": 1e-3, "step": 1, "log": True}}},
    ]  # fmt: skip
    assert Job.model_validate(older).space.steps[0].when == {}


def test_a_step_that_comes_twice_is_named_by_its_number(made):
    space = made(
        "  - {step: drop_layers, optional: true, count: [1]}\n  - {step: quantize, optional: true, scheme: W8A8}\n"
        "  - {step: drop_layers, optional: true, count: [1, 2]}\n"
        "  - {step: distill, when: {drop_layers2.count: 2}, tokens: 1000}\n"
    )
    recipes = [str(recipe) for recipe in recipes_of(space)]
    assert len(recipes) == len(set(recipes)) == 10  # of 11 ways to decide, two make drop_layers(1)
    assert all("drop_layers(2)" in recipe for recipe in recipes if "distill" in recipe)
    later = Recipe.of([{"step": "drop_layers", "count": 2}, {"step": "distill", "tokens": 1000}])
    assert space.params_of(later)["drop_layers2.count"] == 2


def test_a_field_is_drawn_only_where_its_range_is_at_that_point(made):
    space = made(
        "  - {step: drop_layers, count: {low: 1, high: 3, points: 3}}\n"
        "  - {step: distill, when: {drop_layers.count: 3}, tokens: 1000}\n"
    )
    assert sorted(str(recipe) for recipe in recipes_of(space)) == [
        "drop_layers(1)", "drop_layers(2)", "drop_layers(3) → distill(1000)",
    ]  # fmt: skip


def test_a_condition_may_ask_for_a_number_within_a_range(made):
    space = made(
        "  - {step: drop_layers, count: {low: 1, high: 5, step: 2}}\n"
        "  - {step: distill, when: {drop_layers.count: 3}, tokens: 1000}\n"
    )
    assert sorted(str(recipe) for recipe in recipes_of(space)) == [
        "drop_layers(1)", "drop_layers(3) → distill(1000)", "drop_layers(5)",
    ]  # fmt: skip
    wide = made(
        "  - {step: distill, tokens: {low: 1000, high: 1000000}}\n"
        "  - {step: quantize, when: {distill.tokens: 2000}, scheme: W8A8}\n"
    )
    assert [str(recipe) for recipe in recipes_of(wide)] == [
        "distill(1000)", "distill(1000k)", "distill(2000) → quantize(W8A8)",
    ]  # fmt: skip
    with pytest.raises(BadInput, match="outside the space"):  # between two steps of the range
        space.params_of(Recipe.of([{"step": "drop_layers", "count": 2}]))


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("{low: 1, high: 4, step: 2}", [1, 3]),  # 4 is no step from 1
        ("{low: 1, high: 3, step: 5}", [1]),
        ("{low: 1, high: 6}", [1, 2, 3, 4, 5, 6]),
        ("{low: 1.0, high: 3.0e+0}", [1, 2, 3]),  # numbers are those of the field
        ("{low: 1, high: 9, points: 5}", [1, 3, 5, 7, 9]),
        ("{low: 1, high: 100, log: true, points: 3}", [1, 10, 100]),
        ("{low: 1000, high: 1000000, log: true, points: 4}", [1000, 10000, 100000, 1000000]),
    ],
)
def test_a_grid_has_all_its_points(made, given, values):
    space = made(f"  - {{step: distill, tokens: {given}, lr: 1.0e-4, fake_quant: W8A8}}\n")
    assert [recipe.steps[0].tokens for recipe in recipes_of(space)] == values
    assert is_bounded(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {space.sample(study.ask()).steps[0].tokens for _ in range(60)} == set(values)


def test_a_range_of_a_field_that_is_no_whole_number_is_drawn_between_whole_ends_too(made):
    space = made("  - {step: distill, tokens: 1000, lr: 1.0e-4, hidden: {low: 0, high: 2}}\n")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert len({space.sample(study.ask()).steps[0].hidden for _ in range(20)}) == 20
    assert not is_bounded(space)


def test_wide_ranges_do_not_multiply_when_a_space_is_read(made):
    """A thousand numbers in each of four fields: forms are tried at their ends, and a bad one is found."""
    steps = (
        "  - {step: distill, lr: 1.0e-4, trains: lora, tokens: {low: 10000, high: 10900}, rank: {low: 4, high: 64}, "
        "patience: {low: 1, high: 10}, top: {low: 10, high: 500}}\n"
    )
    assert len(list(steps_of(made(steps)))) == 2**4
    with pytest.raises(BadInput, match=r"line \d+: .*rank"):
        made(steps.replace("trains: lora", "trains: [lora, all]"))


@pytest.mark.parametrize("number", ["1" + "0" * 400, ".inf", ".nan"])
def test_numbers_that_no_step_can_have_are_refused(made, number):
    for field in ("lr", "rank"):
        with pytest.raises(BadInput, match=r"line \d+: "):
            made(f"  - {{step: distill, tokens: 1000, {field}: {{low: 1, high: {number}}}}}\n")


@pytest.mark.parametrize("ends", ["low: 1.0e+4, high: 1.0e+6", "low: 10000, high: 1000000"])
def test_whole_numbers_of_a_wide_range_are_drawn_whole_however_its_ends_are_written(made, ends):
    space = made(f"  - {{step: distill, tokens: {{{ends}, log: true}}, lr: 1.0e-4}}\n")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert all(isinstance(space.sample(study.ask()).steps[0].tokens, int) for _ in range(50))
    assert len(list(recipes_of(space))) == 2
    assert len({recipe.hash for recipe in drawn(space, 20)}) == 20


@pytest.mark.parametrize(
    ("count", "seed", "nearest"),
    [("[1, 2, 8]", 6, 8), ("{low: 1, high: 9, points: 5}", 8, 7), ("{low: 1, high: 9, step: 4}", 6, 5)],
)
def test_what_lies_nearest_to_a_seed_outside_the_space_is_told(made, count, seed, nearest):
    with pytest.raises(BadInput, match=rf"nearest in it: drop_layers\({nearest}\)"):
        made(f"  - {{step: drop_layers, count: {count}}}\n", f"seeds: [[{{step: drop_layers, count: {seed}}}]]\n")


def test_numbers_without_a_point_and_a_sign_are_numbers(made):
    """YAML takes 1e4 for text."""
    space = made("  - {step: distill, lr: 1.0e-4, tokens: {low: 1e4, high: 8e4, step: 10000}}\n")
    assert [recipe.steps[0].tokens for recipe in recipes_of(space)] == [10000 * number for number in range(1, 9)]


def test_recipes_drawn_by_chance_are_each_as_likely(made):
    """Where an optional step was there every second time, short recipes would be drawn far more often."""
    space = made(
        "  - {step: drop_layers, optional: true, count: [1, 2, 3]}\n"
        "  - {step: distill, optional: true, tokens: {low: 1000, high: 12000, points: 12}, lr: 1.0e-4}\n"
        "  - {step: quantize, optional: true, scheme: W8A8, when: {distill.use: true}}\n"
    )
    every = list(recipes_of(space))
    assert len(every) == count_of(space) == 4 * (1 + 12 * 2) - 1
    found = Counter(recipe.hash for recipe in drawn(space, 9900))
    assert found.keys() == {recipe.hash for recipe in every}
    assert 50 < min(found.values()) <= max(found.values()) < 150  # 99 of each, within five deviations


def test_the_base_is_no_seed(made):
    with pytest.raises(BadInput, match=r"line 6: seeds.1: a recipe of no steps is the base"):
        made("  - {step: drop_layers, count: [1, 2]}\n", "seeds: [[{step: drop_layers, count: 1}], []]\n")


def test_a_condition_on_a_number_that_is_never_drawn_is_refused(made):
    """Any place between two ends: no number is drawn but by chance."""
    with pytest.raises(BadInput, match=r"line \d+: quantize: a condition on distill.lr would hold by no more"):
        made(
            "  - {step: distill, tokens: 1000, lr: {low: 1.0e-4, high: 1.0e-3}}\n"
            "  - {step: quantize, when: {distill.lr: 5.0e-4}, scheme: W8A8}\n"
        )


def test_points_of_a_grid_have_three_digits_so_that_a_seed_can_name_them(made):
    steps = "  - {step: distill, tokens: 1000, lr: {low: 1.0e-4, high: 1.0e-3, log: true, points: 4}}\n"
    space = made(steps, "seeds: [[{step: distill, tokens: 1000, lr: 2.15e-4}]]\n")
    assert [recipe.steps[0].lr for recipe in recipes_of(space)] == [1e-4, 2.15e-4, 4.64e-4, 1e-3]
    assert space.params_of(space.seed_recipes()[0]) == {"distill.lr": 1}
    with pytest.raises(BadInput, match=r"line 6: seeds.0: .* outside the space"):
        made(steps, "seeds: [[{step: distill, tokens: 1000, lr: 2.0e-4}]]\n")


def test_what_has_a_range_without_points_is_told_apart(made):
    assert not is_bounded(made("  - {step: distill, tokens: 1000, lr: {low: 1.0e-4, high: 1.0e-3}}\n"))


def test_counting_needs_no_recipe(made):
    fields = "lr: [1, 2, 3, 4, 5, 6, 7, 8, 9], max_length: [1, 2, 3, 4, 5, 6, 7, 8, 9], batch_tokens: [1, 2, 3, 4, 5]"
    wide = f"  - {{step: finetune, optional: true, tokens: 1000, {fields}}}\n"
    assert count_of(made(wide * 4)) == 406**4 - 1  # 27 thousand million


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("when: {by: last}", "when: {bye: last}", 8, "count: unknown condition bye; it may name .*layers.by"),
        ("when: {by: last}", "when: {by: middle}", 8, "drop_layers.by is 'last' or 'explicit'"),
        ("when: {by: last}", "when: {count: 1}", 8, "circle: drop_layers.count needs drop_layers.count"),
        ("when: {by: last}", "when: {}", 8, "when is a mapping"),
        ("when: {by: last}", "when: {by: []}", 8, "an empty list never holds"),
        ("value: [3]}", "value: [3], low: 1}", 9, "value and low do not go together"),
        ("drop_layers.use: true,", "prune_ffn.use: true,", 11, "distill: unknown condition prune_ffn.use"),
        ("drop_layers.use: true,", "use: true,", 11, "unknown condition use"),
        ("drop_layers.use: true,", "drop_layers.use: maybe,", 11, "drop_layers.use is False or True"),
        ("quantize.use: [true, false]", "distill.lr: 1.0e-4", 11, "circle: distill.use needs distill.lr, "),
        ("quantize.scheme: W4A16", "quantize.scheme: [W4A16, W8A16]", 14, "'W8A16' never holds"),
        ("method: gptq", "scheme: W8A8, method: gptq", 19, "quantize.dampening is never there"),
        ("scheme: [W8A8,", "scheme: {when: {distill.fake_quant: W4A16}, values: [W8A8,", 14, "circle"),
        ("low: 0.01, high: 0.1, points: 2", "low: 0.01, high: 0.1, points: 1", 19, "points"),
        ("low: 0.01, high: 0.1, points: 2", "low: 0.1, high: 0.1, points: 2", 19, "only 1 numbers of three digits"),
        ("low: 0.01, high: 0.1, points: 2", "low: -0.01, high: 0.1, points: 2", 19, "dampening = -0.01"),
        ("values: [1, 2]}", "values: [1, 0]}", 8, "count = 0"),
        ("values: [1, 2]}", "values: 1}", 8, "values is a list"),
    ],
)  # fmt: skip
def test_conditions_that_cannot_be_are_told_with_their_line(made, old, new, line, said):
    assert STEPS.count(old) == 1
    text = STEPS.replace(old, new)
    with pytest.raises(BadInput, match=rf"space.yaml, line {line}: .*{said}"):
        made(text.replace("W4A16]\n    method", "W4A16]}\n    method") if "values: [W8A8" in new else text)


def test_steps_that_wait_for_one_another_are_refused(made):
    with pytest.raises(BadInput, match=r"line 5: .*circle: nf4.use needs quantize.use, quantize.use needs nf4.use"):
        made(
            "  - {step: nf4, when: {quantize.use: false}}\n  - {step: quantize, when: {nf4.use: false}, scheme: W8A8}\n"
        )


def test_a_step_that_is_always_there_is_never_away(made):
    with pytest.raises(BadInput, match=r"line 6: .*nf4.use False never holds: nf4.use is True"):
        made("  - {step: nf4}\n  - {step: quantize, when: {nf4.use: false}, scheme: W8A8}\n")
