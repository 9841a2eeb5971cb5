"""Whatever is wrong in a space file is told with the file's name and the line on which it stands."""

import pytest

from search.errors import BadInput
from search.forms import recipes_of
from search.space import Space
from search.space_file import load_space
from search.yaml_lines import read

SPACE = """description: lines are counted from 1, this is the first
steps:
  - step: drop_layers
    optional: true
    count: [1, 2, 3]
  - step: distill
    tokens: 1000
    lr:
      low: 1.0e-4
      high: 1.0e-3
      log: true
  - step: quantize
    scheme:
      - W8A8
      - W4A16
    group_size: {when: {scheme: W4A16}, values: [64, 128]}
seeds:
  - [{step: distill, tokens: 1000, lr: 3.0e-4}, {step: quantize, scheme: W8A8}]
  - - step: distill
      tokens: 1000
      lr: 5.0e-4
    - step: quantize
      scheme: W4A16
      group_size: 64
evaluation:
  benchmarks: {kmmlu_pro: reference:items/kmmlu_pro.jsonl}
  judge:
    url: http://127.0.0.1
    model: gpt-4
    templates: judge.jsonl
calibration: reference:text/calibration.jsonl
rungs:
  - {items: 0.1, tokens: 0.1}
  - {items: 0.5, tokens: 0.5}
  - {items: 1.0, tokens: 1.0}
target: L4
trials: 14
"""
LANES = """lanes:
  - [{step: quantize, scheme: W8A8}]
  - - step: drop_layers
      count: 1
    - step: quantize
      scheme: W4A16
evaluation:
  benchmarks: {kmmlu_pro: reference:items/kmmlu_pro.jsonl}
"""


def write(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return str(tmp_path / "space.yaml")


def test_the_space_of_these_tests_is_good(tmp_path):
    load_space(write(tmp_path, SPACE))
    load_space(write(tmp_path, LANES))


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("step: drop_layers\n", "step: shrink\n", 3, "unknown step shrink"),
        ("- step: drop_layers\n", "- stop: drop_layers\n", 3, "needs a name"),
        ("optional: true", "optional: 3", 4, "optional is true or false, not 3"),
        ("    count: [1, 2, 3]", "    number: [1, 2, 3]", 5, "no field number"),
        ("count: [1, 2, 3]", "count: []", 5, "empty list"),
        ("count: [1, 2, 3]", "by: explicit\n    layers: [3, 7]", 6, "valid tuple.* write .fixed: .*to choose"),
        ("count: [1, 2, 3]", "count: [1, 2, 1]", 5, "choice 1 stands there twice"),
        ("count: [1, 2, 3]", "count: [1, 0]", 5, "count = 0"),
        ("count: [1, 2, 3]", "count: {lo: 1, high: 3}", 5, "neither a value nor a range"),
        ("      high: 1.0e-3", "      high: 1.0e-5", 8, "low 0.0001 is above high 1e-05"),
        ("      log: true", "      lag: true", 11, "lag"),
        ("      log: true", "      log: perhaps", 11, "log"),
        ("      - W4A16", "      - W9A9", 15, "W9A9"),
        ("tokens: 1000\n    lr", "tokens: lots\n    lr", 7, "tokens = 'lots'"),
        ("lr: 3.0e-4}", "lr: 3.0e-2}", 18, "seeds.0: the recipe .* lies outside the space"),
        ("      group_size: 64", "      group_size: 32", 19, "seeds.1: the recipe .* lies outside the space"),
        ("      lr: 5.0e-4", "      lr: fast", 21, "seeds.1: step distill: field lr = 'fast'"),
        ("    - step: quantize\n      scheme: W4A16\n", "    - step: nope\n      scheme: W4A16\n", 22, "'nope'"),
        ("benchmarks: {", "benchmark: {", 26, "evaluation.benchmark: there is no such field"),
        ("    model: gpt-4", "    model: 4", 29, "evaluation.judge.model"),
        ("calibration: reference:text/calibration.jsonl", "calibration: hub", 31, "names no data set"),
        ("items: 0.5, tokens: 0.5", "items: 0.05, tokens: 0.5", 34, "rungs must rise"),
        ("items: 1.0, tokens: 1.0", "items: 0.9, tokens: 1.0", 35, "the last rung"),
        ("items: 0.1, tokens: 0.1", "items: 1.1, tokens: 0.1", 33, "less than or equal to 1"),
        ("target: L4", "target: L5", 36, "target"),
        ("trials: 14", "trials: 0", 37, "trials"),
        ("trials: 14", "hours: 0", 37, "hours"),
        ("trials: 14", "rings: 3", 37, "rings: there is no such field; did you mean rungs"),
        ("trials: 14", "patience: {trials: 3, gains: 0.1}", 37, "patience.gains: there is no such field$"),
        ("trials: 14", "wandb: 3", 37, "wandb: there is no such field$"),
        ("evaluation:\n", "evalution:\n", 25, "evalution: there is no such field; did you mean evaluation"),
        ("trials: 14", "target: L4", 37, "target stands there twice"),
        ("trials: 14", "trials: [14", 38, "not YAML"),
        ("trials: 14", "trials: 14\nlanes: [[{step: nf4}]]", 1, "give one of the two"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, line, said):
    assert SPACE.count(old) == 1
    path = write(tmp_path, SPACE.replace(old, new))
    with pytest.raises(BadInput, match=rf"^{path}, line {line}: .*{said}") as told:
        load_space(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("[{step: quantize, scheme: W8A8}]", "{step: quantize}", 2, "lanes.0: a recipe is a list of steps"),
        ("      count: 1", "      count: 0", 4, "lanes.1: step drop_layers: field count = 0"),
        ("      scheme: W4A16", "      schema: W4A16", 6, "lanes.1: step quantize"),
        ("evaluation:", "seeds: [[{step: nf4}]]\nevaluation:", 7, "nothing to seed"),
    ],
)
def test_so_are_lanes(tmp_path, old, new, line, said):
    path = write(tmp_path, LANES.replace(old, new))
    with pytest.raises(BadInput, match=rf"^{path}, line {line}: .*{said}"):
        load_space(path)


def test_a_file_that_contains_itself_is_refused(tmp_path):
    path = write(tmp_path, "steps: &all\n  - step: nf4\n  - *all\n")
    with pytest.raises(BadInput, match="line 1: the part that begins here contains itself"):
        load_space(path)


def test_a_condition_where_nothing_else_is_given_is_told_so(tmp_path):
    step = "steps:\n  - {step: nf4, when: {nope.use: true}}\n"
    with pytest.raises(BadInput, match=r"line 2: .*unknown condition nope.use; the space gives nothing else"):
        load_space(write(tmp_path, step + LANES[LANES.index("evaluation") :]))


def test_a_date_that_there_is_not_is_no_yaml(tmp_path):
    path = write(tmp_path, SPACE.replace("lines are counted from 1, this is the first", "2025-02-30"))
    with pytest.raises(BadInput, match=rf"^{path}: day is out of range .*quotes"):
        load_space(path)


def test_choices_that_a_step_takes_for_the_same_are_told(tmp_path):
    path = write(tmp_path, SPACE.replace("    tokens: 1000\n", "    tokens: [1000, '1000']\n", 1))
    with pytest.raises(BadInput, match=r"line 7: .*the choice '1000' stands there twice"):
        load_space(path)


def test_a_condition_on_a_value_that_its_step_writes_otherwise_holds(tmp_path):
    text = SPACE.replace("    tokens: 1000\n", "    tokens: [1e3, '2000']\n", 1)
    text = text.replace("{scheme: W4A16}, values", "{scheme: W4A16, distill.tokens: 1e3}, values")
    text = text.split("seeds:")[0] + "evaluation:" + text.split("evaluation:")[1]
    space = load_space(write(tmp_path, text))
    assert space.steps[1].choices["tokens"] == (1000, 2000)
    groups = {(step.step, getattr(step, "group_size", None)) for step in recipes_with(space, tokens=1000)}
    assert ("quantize", 64) in groups
    assert ("quantize", 64) not in {(one.step, one.group_size) for one in recipes_with(space, tokens=2000)
                                    if one.step == "quantize"}  # fmt: skip


@pytest.mark.parametrize(("written", "asked"), [("1e-4", "0.0001"), ("0.0001", "1e-4"), ("1e-4", "1.0e-4")])
def test_a_condition_means_a_number_however_it_is_written(tmp_path, written, asked):
    text = SPACE.split("seeds:")[0].replace(
        "\n      low: 1.0e-4\n      high: 1.0e-3\n      log: true", f" [{written}, 5e-4]"
    )
    text = text.replace("{scheme: W4A16}, values", f"{{scheme: W4A16, distill.lr: {asked}}}, values")
    space = load_space(write(tmp_path, text + "evaluation:" + SPACE.split("evaluation:")[1]))
    assert space.steps[1].choices["lr"] == (0.0001, 0.0005)
    assert space.steps[2].field_when["group_size"] == {"scheme": ("W4A16",), "distill.lr": (0.0001,)}


def test_of_a_run_begun_before_choices_alike_are_one(tmp_path):
    space = load_space(
        write(tmp_path, SPACE.replace("    count: [1, 2, 3]", "    by: explicit\n    layers: [[3, 7], [5]]"))
    )
    dump = space.model_dump()
    dump["steps"][0]["choices"]["layers"] = [[3, 7], [7, 3], [5]]
    assert list(Space.model_validate(dump).steps[0].choices["layers"]) == [[3, 7], [5]]
    dump["steps"][1].update({"ranges": {}, "choices": {"lr": ["1e-4", "5e-4"]}})
    dump["steps"][2]["field_when"]["group_size"]["distill.lr"] = ["1e-4"]
    dump["seeds"] = []
    old = Space.model_validate(dump)
    assert (old.steps[1].choices["lr"], old.steps[2].field_when["group_size"]["distill.lr"]) == ((1e-4, 5e-4), (1e-4,))


def test_a_condition_on_a_file_means_the_file_beside_the_space(tmp_path):
    text = SPACE.split("seeds:")[0].replace(
        "    lr:\n", "    data: [a.jsonl, b.jsonl]\n    lr:\n      when: {data: a.jsonl}\n"
    )
    text = text.replace("{scheme: W4A16}, values", "{scheme: W4A16, distill.data: [b.jsonl]}, values")
    space = load_space(write(tmp_path, text + "evaluation:" + SPACE.split("evaluation:")[1]))
    assert space.steps[1].field_when["lr"] == {"data": (str(tmp_path / "a.jsonl"),)}
    assert space.steps[2].field_when["group_size"]["distill.data"] == (str(tmp_path / "b.jsonl"),)


def recipes_with(space, tokens):
    """All steps of the recipes that distill on so many."""
    for recipe in recipes_of(space):
        if any(getattr(step, "tokens", None) == tokens for step in recipe.steps):
            yield from recipe.steps


def test_a_condition_on_a_field_of_files_names_no_file(tmp_path):
    (tmp_path / "mine.txt").write_text("text\n")
    steps = "steps:\n  - step: trim_vocab\n    mode: [exact, lossy]\n"
    steps += "    corpus: {when: {mode: [exact, lossy]}, value: [mine.txt]}\n"
    path = write(
        tmp_path, steps + "    keep: {when: {mode: lossy}, values: [64, 128]}\n" + LANES[LANES.index("evaluation") :]
    )
    (step,) = load_space(path).steps
    assert step.field_when["corpus"] == {"mode": ("exact", "lossy")}
    assert step.fixed["corpus"] == [str(tmp_path / "mine.txt")]


def test_what_the_file_does_not_hold_is_told_by_what_is_around_it(tmp_path):
    write(tmp_path, "a:\n  b: 1\n  c:\n    values:\n      - 7\n")
    lines = read(tmp_path / "space.yaml")[1]
    assert [lines.of(place) for place in [("a", "b"), ("a", "x"), ("a", "c", 0), ("y",), ()]] == [2, 1, 5, 1, 1]
