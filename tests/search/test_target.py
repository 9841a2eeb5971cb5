"""Predictions for where a model is meant to run: by the roofline and by recorded submissions."""

import csv
import json

import pytest

from evaluation.description import description_of
from evaluation.reference import MODEL
from evaluation.roofline_table import EXAONE
from evaluation.submissions import COLUMNS
from search.errors import BadInput
from search.prospects import prospects_for
from search.recipe import Recipe
from search.space_file import load_space
from search.target import as_submission, check_submissions, described, forecast, in_words, predicted_of, speed_on
from tests.shapes import EXAONE as SHAPE

CONFIG = {
    "architectures": ["Exaone4ForCausalLM"], "num_hidden_layers": 30, "hidden_size": 2048, "intermediate_size": 4096,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 102400,
    "tie_word_embeddings": True, "max_position_embeddings": 65536,
}  # fmt: skip


@pytest.fixture
def base(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def recipe(*steps):
    return Recipe.of([{"step": name, **fields} for name, fields in steps])


W8A8 = ("quantize", {"scheme": "W8A8"})


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], EXAONE),
        ([W8A8], EXAONE.quantized("W8A8")),
        ([("drop_layers", {"count": 3}), W8A8], EXAONE.model_copy(update={"layers": 27}).quantized("W8A8")),
        ([("trim_vocab", {"mode": "lossy", "keep": 80000})], EXAONE.model_copy(update={"vocab": 80000})),
        ([("prune_ffn", {"width": 3072})], EXAONE.model_copy(update={"ffn": 3072})),
        ([("quantize", {"scheme": "W4A16", "sensitive": 8})], EXAONE.quantized("W4A16", kept_layers=8)),
        ([("quantize", {"scheme": "W8A8", "kv_cache": "fp8"})], EXAONE.quantized("W8A8", kv_bits=8)),
    ],
)
def test_a_recipe_is_described_as_what_it_makes(base, steps, expected):
    found = described(recipe(*steps), base)
    assert found.step_bytes == pytest.approx(expected.step_bytes)
    assert found.model_copy(update={"linears": ()}) == expected.model_copy(update={"linears": ()})
    assert {(one.bits, one.group, one.rate) for one in found.linears} == {
        (one.bits, one.group, one.rate) for one in expected.linears
    }
    assert description_of(base) == EXAONE


def test_smaller_numbers_and_fewer_layers_are_faster_on_an_l4(base):
    told = [
        speed_on("L4", recipe(*steps), base).speed_norm for steps in ([], [W8A8], [("drop_layers", {"count": 3}), W8A8])
    ]
    assert told[0] == 0.0
    assert told[0] < told[1] < told[2] < 1


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], {"scheme": "none", "layers": 30, "trained": False}),
        ([("quantize", {"scheme": "W4A16", "method": "gptq"})], {"scheme": "W4A16", "algorithm": "gptq"}),
        ([("quantize", {"scheme": "FP8_STATIC"})], {"scheme": "FP8"}),
        ([("quantize", {"scheme": "W8A16"})], {"scheme": "other"}),
        ([("drop_layers", {"count": 2}), ("distill", {"tokens": 1000}), W8A8],
         {"scheme": "W8A8", "layers": 28, "trained": True, "kept": False}),
        ([("quantize", {"scheme": "W4A16", "sensitive": 4})], {"kept": True}),
    ],
)  # fmt: skip
def test_a_recipe_is_told_as_submissions_are(steps, expected):
    told = as_submission(recipe(*steps), SHAPE).model_dump()
    assert {name: told[name] for name in expected} == expected


@pytest.fixture
def submissions(tmp_path):
    """Rounding to W8A8 did well, training before it badly."""
    path = tmp_path / "kept.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        for number in range(16):
            good = number % 2 == 0
            writer.writerow({
                "source": f"s{number}", "scheme": "W8A8", "algorithm": "rtn", "server_run_minutes": 10,
                "details": "" if good else "SFT before", "layers": 30,
                "server_score": (0.63 if good else 0.40) + 0.001 * number,
            })  # fmt: skip
    return path


def test_what_the_server_would_say_is_read_off_submissions(base, submissions):
    plain, trained = (
        forecast(recipe(*steps), base, submissions) for steps in ([W8A8], [("finetune", {"tokens": 1000}), W8A8])
    )
    assert plain.fast == pytest.approx(0.637, abs=0.02)
    assert trained.fast < plain.fast - 0.1


def test_nothing_is_predicted_where_nothing_is_asked(base, space, submissions):
    one = recipe(W8A8)
    assert predicted_of(space, one, base) == {}
    meant = space.model_copy(update={"target": "L4", "submissions": str(submissions)})
    found = predicted_of(meant, one, base)
    words = list(in_words(meant, found))
    assert [line.split(",")[0] for line in words] == [
        "predicted by a roofline", "predicted from kept.csv",
    ]  # fmt: skip
    # on the target itself speed is measured
    assert "speed_norm" not in predicted_of(meant, one, base, device="NVIDIA L4")
    assert "speed_norm" in predicted_of(meant, one, base, device="NVIDIA L40S")
    other = meant.model_copy(update={"target": "H100"})
    assert "speed_norm" not in predicted_of(other, one, base, device="NVIDIA H100 80GB HBM3")


def test_one_gpus_roofline_tells_nothing_of_several(base, space):
    shared = space.model_copy(update={"target": "L4", "gpus": 2})
    assert predicted_of(shared, recipe(W8A8), base) == {}
    assert prospects_for(shared, base, ["L4"]) is None


def test_a_file_of_too_few_submissions_is_refused(base, tmp_path):
    (tmp_path / "few.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(BadInput, match="0 rows"):
        forecast(recipe(W8A8), base, tmp_path / "few.csv")


def test_presets_for_the_contest_name_its_gpu():
    assert load_space("reproduce").target == "L4"


def test_submissions_of_another_model_are_refused(base, submissions):
    check_submissions(submissions, base)
    with pytest.raises(BadInput, match=r"tells of EXAONE-4\.0-1\.2B, 30 layers, and .* has 10: no forecast"):
        check_submissions(submissions, MODEL)
