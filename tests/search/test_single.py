"""Commands on one recipe or one model: compress, evaluate."""

import json
import shutil

import pytest
from transformers import AutoConfig

from evaluation.reference import MODEL
from search.errors import BadInput, RunFailed
from search.measuring import evaluate
from search.plan import plan
from search.recipe import Recipe
from search.single import compress, read_recipe
from search.space_file import load_space
from search.start import check_questions, new_job
from tests.evaluation import broken

SMALL = """
steps: [{step: drop_layers, count: [1]}]
evaluation:
  limit: 8
  benchmarks: {kmmlu_redux: reference:items/kmmlu_redux.jsonl}
calibration: reference:text/calibration.jsonl
max_model_len: 1024
"""


def test_one_recipe_is_applied_and_measured_against_the_base(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("- {step: drop_layers, count: 1}\n- {step: context, max_position_embeddings: 1024}\n")
    (tmp_path / "space.yaml").write_text(SMALL)
    told = compress(str(recipe), "tiny", tmp_path / "model", None)
    assert [stage["step"] for stage in told["stages"]] == ["drop_layers", "context"]
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert (config.num_hidden_layers, config.max_position_embeddings) == (9, 1024)
    assert not (tmp_path / "model" / "provenance.json").exists()
    result = evaluate(str(tmp_path / "model"), "tiny", str(tmp_path / "space.yaml"))
    assert result["benchmarks"]["kmmlu_redux"]["n"] == 8
    assert result["health"]["kmmlu_redux"]["answers"] == 8
    assert "answers        all answers end, say something and are text" in result["text"]
    assert result["score"]["perf_norm"] == pytest.approx(result["perf"] / result["score"]["perf_base"])
    with pytest.raises(BadInput, match="there already"):
        compress(str(recipe), "tiny", tmp_path / "model", None)


def test_a_defect_under_way_is_one_line_and_told_in_full_beside_the_output(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")

    monkeypatch.setattr("compressors.depth.DropLayers.apply", broken)
    with pytest.raises(RunFailed, match=r"drop_layers.*: RuntimeError: mat1 and mat2 shapes cannot .*traceback\.txt"):
        compress('[{"step": "drop_layers", "count": 1}]', "tiny", tmp_path / "model", None)
    assert "in broken" in (tmp_path / "model.traceback.txt").read_text()


@pytest.mark.parametrize("form", ["json text", "json", "yaml"])
def test_a_recipe_is_read_in_every_form(tmp_path, form):
    steps = [{"step": "drop_layers", "count": 2}]
    if form == "json text":
        source = json.dumps(steps)
    else:
        path = tmp_path / f"recipe.{form}"
        path.write_text(json.dumps(steps) if form == "json" else "- step: drop_layers\n  count: 2\n")
        source = str(path)
    assert read_recipe(source) == Recipe.of(steps)


@pytest.mark.parametrize(
    ("text", "said"),
    [("nowhere.yaml", "no recipe at nowhere.yaml"), ('[{"step": "drop_layers"}]', "count"), ("[1]", "mapping")],
)
def test_a_bad_recipe_is_named(text, said):
    with pytest.raises(BadInput, match=said):
        read_recipe(text)


def test_a_training_that_did_no_good_is_said(tmp_path):
    harmful = {"step": "finetune", "tokens": 2000, "lr": 1000.0, "average": 0, "warmup_tokens": 1, "batch_tokens": 512}
    told = compress(json.dumps([harmful]), "tiny", tmp_path / "model", None)
    assert told["stages"][0]["notes"]["kept"] == "input"
    assert "finetune: training did no good" in told["text"]


def test_a_trim_is_told_and_its_ids_go_along(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(
        json.dumps({"conversations": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]})
    )
    told = compress('[{"step": "trim_vocab"}]', "tiny", tmp_path / "model", data)
    rows = AutoConfig.from_pretrained(tmp_path / "model").vocab_size
    assert f"trim_vocab: {2048 - rows:,} of 2,048 tokens are gone" in told["text"]
    assert len(json.loads((tmp_path / "model" / "kept_tokens.json").read_text())) == rows


def test_what_fails_leaves_no_folder(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"conversations": [{"role": "user", "content": "nobody answers"}]}))
    with pytest.raises(RunFailed, match=r"^finetune on .*: no row of the calibration data has an answer"):
        compress('[{"step": "finetune", "tokens": 100}]', "tiny", tmp_path / "model", data)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("[]", "at least one step"),
        ('{"step": "quantize"}', "a recipe is a list of steps"),
        ('[{"step": "generation", "stop": ["<nope>"]}]', "'<nope>' is no token of this model"),
    ],
)
def test_what_cannot_be_is_bad_input(tmp_path, recipe, said):
    with pytest.raises(BadInput, match=said):
        compress(recipe, "tiny", tmp_path / "model", None)
    assert not (tmp_path / "model").exists()


def test_a_base_with_a_number_that_is_none_is_refused(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.3.mlp.up_proj.weight"
    weights[name][0, 0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=rf"tensor {name} in .* holds NaN or Inf"):
        compress('[{"step": "context", "max_position_embeddings": 1024}]', str(tmp_path / "base"), tmp_path / "m", None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (broken.without_template, "has no chat template, .*: add chat_template.jinja"),
        (
            lambda folder: broken.with_template(folder, "{{ raise_exception('no') }}"),
            "fails on 2 questions: TemplateError: no; mend it",
        ),
    ],
)
def test_a_base_that_no_conversation_can_be_put_to_is_refused(tmp_path, make, said):
    base = str(make(tmp_path / "base"))
    before = sorted(tmp_path.iterdir())
    for work in (
        lambda: plan("demo", base),
        lambda: evaluate(base, None, "demo"),
        lambda: new_job("demo", base, tmp_path / "run"),
    ):
        with pytest.raises(BadInput, match=said):
            work()
    assert sorted(tmp_path.iterdir()) == before


def test_a_candidate_that_lost_its_template_is_refused(tmp_path):
    with pytest.raises(BadInput, match="has no chat template"):
        evaluate(str(broken.without_template(tmp_path / "model")), "tiny", "demo")


def test_a_quantized_model_may_be_asked_by_a_space_it_cannot_be_searched_in(tmp_path):
    compress('[{"step": "quantize", "scheme": "W8A8"}]', "tiny", tmp_path / "model", None)
    assert check_questions(load_space("demo"), tmp_path / "model") == {}
