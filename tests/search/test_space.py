"""Spaces: what they hold, what they refuse, and how a recipe is found in them again."""

import json
from pathlib import Path

import optuna
import pytest

from evaluation.judge import JudgeSpec
from evaluation.suite import SuiteSpec
from search.errors import BadInput
from search.forms import recipes_of
from search.job import Job
from search.recipe import Recipe
from search.rungs import Rung
from search.searchers.tpe import Tpe
from search.space import Range, Space, StepSpace
from search.space_file import PRESETS, load_space


def drawn(space, number=40):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.sample(study.ask()) for _ in range(number)]


def test_every_draw_is_found_again_by_its_parameters(space):
    for recipe in drawn(space):
        study = optuna.create_study()
        study.enqueue_trial(space.params_of(recipe))
        assert space.sample(study.ask()) == recipe


def test_fields_of_a_step_left_out_are_not_drawn(space):
    study = optuna.create_study()
    study.enqueue_trial({"drop_layers.use": False, "distill.use": False, "quantize.use": False})
    trial = study.ask()
    assert space.sample(trial) == Recipe([])
    assert set(trial.params) == {"drop_layers.use", "distill.use", "quantize.use"}


def test_a_choice_that_is_a_list_is_found_again(tmp_path, space_text):
    """A step makes a tuple of it, which is none of the choices as written: a seed of such a space ended the search."""
    told = "by: [explicit]\n    layers: [[1, 2], [3]]"
    text = space_text.replace("count: [1, 2, 3]", told).replace(
        "{step: drop_layers, count: 2}", "{step: drop_layers, by: explicit, layers: [3]}"
    )
    (tmp_path / "lists.yaml").write_text(text)
    space = load_space(str(tmp_path / "lists.yaml"))
    study = optuna.create_study()
    study.enqueue_trial(space.params_of(space.seed_recipes()[1]))
    assert space.sample(study.ask()) == space.seed_recipes()[1]


def test_a_recipe_outside_the_space_is_refused(space):
    with pytest.raises(BadInput, match="outside the space"):
        space.params_of(Recipe.of([{"step": "drop_layers", "count": 5}]))
    with pytest.raises(BadInput, match="outside the space"):
        space.params_of(
            Recipe.of([{"step": "quantize", "scheme": "W8A8"}, {"step": "context", "max_position_embeddings": 512}])
        )


def test_all_recipes_of_choices_are_enumerated(space):
    # 4 ways to drop, 3 to distill (not, and two ends of the range), 3 to quantize; but for the base itself
    assert len(list(recipes_of(space))) == 4 * 3 * 3 - 1


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_valid(preset):
    space = load_space(preset)
    assert space.rungs[-1].items == 1.0
    assert len(space.rungs) >= 3
    assert space.seed_recipes()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("step: drop_layers\n", "step: drop_heads\n", "unknown step drop_heads"),
        ("count: [1, 2, 3]", "number: [1, 2, 3]", "no field number"),
        ("count: [1, 2, 3]", "count: [1, 0]", "count"),
        ("count: [1, 2, 3]", "count: []", "empty list"),
        ("low: 1.0e-4", "low: 1.0e-2", "above high"),
        ("scheme: [W8A8, W4A16]", "scheme: [W8A8, W9A9]", "W9A9"),
        ("calibration: reference:text/calibration.jsonl", "calibration: 3", "calibration"),
        ("rungs:\n", "rings: 3\nrungs:\n", "rings"),
        ("items: 0.5, tokens: 0.5", "items: 0.05, tokens: 0.5", "rungs must rise"),
        ("items: 0.5, tokens: 0.5", "items: 1.0, tokens: 1.0", "stands there twice"),
        ("items: 1.0, tokens: 1.0", "items: 0.9, tokens: 1.0", "last rung"),
        ("count: [1, 2, 3]", "count: [yes, 2, 3]", "True is no number"),
        ("{step: drop_layers, count: 2}", "{step: drop_layers, count: 7}", "outside the space"),
        ("  - [{step: quantize, scheme: W8A8}]\n", "  - {step: quantize}\n", "seeds.0: a recipe is a list of steps"),
        ("steps:\n", "steps: [\n", "line .*: not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, space_text, old, new, said):
    assert old in space_text
    path = tmp_path / "space.yaml"
    path.write_text(space_text.replace(old, new))
    with pytest.raises(BadInput, match=said) as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


def test_a_space_survives_run_json(space, tmp_path):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=3)
    job.save()
    (tmp_path / "ledger.jsonl").touch()
    assert Job.load(tmp_path) == job


def test_a_run_begun_before_spaces_had_a_training_seed_goes_on_with_that_of_its_search(space, tmp_path):
    where = {"base": tmp_path, "run": tmp_path, "store": tmp_path / "store"}
    Job(**where, base_key="0", space=space, device="cpu", trials=3, seed=3).save()
    (tmp_path / "ledger.jsonl").touch()
    content = json.loads((tmp_path / "run.json").read_text())
    del content["space"]["training_seed"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert Job.load(tmp_path).space.training_seed == 3


def test_a_run_begun_before_trials_took_several_gpus_takes_one(space, tmp_path):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cuda", trials=3)
    job.save()
    (tmp_path / "ledger.jsonl").touch()
    content = json.loads((tmp_path / "run.json").read_text())
    del content["space"]["gpus"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert Job.load(tmp_path) == job
    assert job.devices == 1
    assert job.model_copy(update={"space": space.model_copy(update={"gpus": 4})}).devices == 4


@pytest.mark.parametrize(
    ("range_", "said"),
    [
        ("{low: 1, high: 3, step: 0}", "greater than or equal to 1"),
        ("{low: 1, high: 3, step: 2, log: true}", "without log"),
        ("{low: 0, high: 3, log: true}", "above 0"),
        ("{low: 1.5, high: 3}", "count: range: low 1.5 is no whole number"),
        ("{low: 1, high: 2.5}", "count: range: high 2.5 is no whole number"),
    ],
)
def test_ranges_that_cannot_be_drawn_are_refused(tmp_path, space_text, range_, said):
    path = tmp_path / "space.yaml"
    path.write_text(space_text.replace("count: [1, 2, 3]", f"count: {range_}"))
    with pytest.raises(BadInput, match=said):
        load_space(str(path))


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(BadInput, match="demo"):
        load_space("nonesuch")


def test_the_space_that_the_readme_shows_is_valid(tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    shown = text.split("```yaml\nsteps:")[1].split("```")[0]
    (tmp_path / "space.yaml").write_text("steps:" + shown)
    assert len(load_space(str(tmp_path / "space.yaml")).steps) == 4


def test_the_conditions_that_the_readme_shows_are_valid(tmp_path, space_text):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    steps = readme.split("may be a grid:")[1].split("```")[1].removeprefix("yaml\n")
    first = "steps:\n  - {step: drop_layers, optional: true, count: [1, 2]}\n"
    (tmp_path / "space.yaml").write_text(first + steps + space_text[space_text.index("evaluation:") :])
    # W8A8 by rtn, gptq; W4A16 by rtn, by gptq at both ends of its range; FP8
    assert len(list(recipes_of(load_space(str(tmp_path / "space.yaml"))))) == (1 + 2 * 3) * (2 + 3 + 1)


LANES = """
lanes:
  - [{step: quantize, scheme: W8A8}]
  - [{step: drop_layers, count: 1}, {step: finetune, tokens: 1000, data: rows.jsonl}]
evaluation:
  benchmarks: {kmmlu_pro: reference:items/kmmlu_pro.jsonl}
"""


def test_lanes_are_all_there_is_and_are_tried_in_their_order(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(LANES)
    space = load_space(str(path))
    assert space.calibration == "self"
    lanes = list(recipes_of(space))
    assert [str(lane) for lane in lanes] == [
        "quantize(W8A8)", f"drop_layers(1) → finetune(1000, {tmp_path / 'rows.jsonl'})"
    ]  # fmt: skip
    assert space.seed_recipes() == lanes
    sampler = Tpe(space)
    assert [sampler.propose() for _ in range(3)] == [*lanes, None]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("evaluation:", "steps: [{step: quantize, scheme: W8A8}]\nevaluation:", "give one of the two"),
        ("evaluation:", "seeds: [[{step: quantize, scheme: W8A8}]]\nevaluation:", "nothing to seed"),
        ("{step: quantize, scheme: W8A8}", "{step: quantise}", "lanes.0: step 'quantise' is unknown"),
    ],
)
def test_lanes_that_cannot_be_are_named(tmp_path, old, new, said):
    path = tmp_path / "space.yaml"
    path.write_text(LANES.replace(old, new))
    with pytest.raises(BadInput, match=said):
        load_space(str(path))


@pytest.mark.parametrize("model", [Space, StepSpace, Range, Rung, SuiteSpec, JudgeSpec])
def test_every_field_has_a_description(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_patience_needs_a_scheduler_that_ends_trials_on_the_way(space_text, tmp_path):
    path = tmp_path / "patient.yaml"
    path.write_text(space_text + "patience: {trials: 3}\n")
    assert load_space(str(path)).patience.trials == 3
    path.write_text(space_text + "patience: {trials: 3}\nscheduler: promoting\n")
    with pytest.raises(BadInput, match=r"line \d+: patience: with scheduler promoting"):
        load_space(str(path))


def test_a_copy_with_other_steps_has_knobs_of_its_own(space):
    knobs = space.knobs
    copy = space.model_copy(update={"steps": space.steps[:1]})
    assert [knob.name for knob in copy.knobs] == ["drop_layers.use", "drop_layers.count"]
    assert space.knobs is knobs and space.model_copy(update={"trials": 3}).knobs is knobs
    assert copy == copy.model_validate(copy.model_dump())
