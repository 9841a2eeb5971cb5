"""What a search would do, told before it begins: counts, refusals, speed, size, hours, and what is done already."""

import itertools
import json
import random
import statistics

import pytest

from compressors.build import build
from compressors.data import read_conversations
from compressors.store import Store
from evaluation.reference import CALIBRATION, MODEL
from search.asha import Asha
from search.errors import BadInput
from search.estimate import cost_of, expected_promotions, expected_trials
from search.forms import count_of
from search.plan import plan
from search.recipe import Recipe
from search.space_file import load_space
from search.start import new_job
from tests.search.planned import EVALUATION, STEPS, everything_in
from tests.search.test_target import CONFIG


def test_recipes_are_counted_and_refusals_grouped_by_reason():
    told = plan("demo", "tiny")
    assert told["recipes"] == 4 * 3 * 3 - 1
    # distillation of an undamaged base, with each of three ways to quantize or not
    assert len(told["infeasible"]) == 2 * 3
    assert [(one["recipes"], "nothing to win back" in one["reason"]) for one in told["reasons"]] == [(6, True)]
    assert told["reasons"][0]["example"] in told["infeasible"]
    assert "35 recipes; 29 feasible on vLLM" in told["text"]
    assert "no hours told" in told["text"]
    assert "no SpeedNorm told" in told["text"]


def test_a_lane_that_is_infeasible_is_a_trial_all_the_same(written, weightless):
    lanes = "lanes: [[{step: drop_layers, by: last, count: 1}], [{step: drop_layers, by: last, count: 9}]]\n"
    told = plan(written(lanes + EVALUATION), str(weightless))
    assert (told["feasible"], told["trials"]) == (["drop_layers(1, last)"], 2)


def test_a_plan_tells_what_ends_a_search_and_what_it_costs(written, weightless):
    path = written(STEPS + EVALUATION + "target: L4\ntrials: 4\nhours: 3\n")
    asked = plan(path, str(weightless), trials=2, hours=5.0)
    assert (asked["trials"], asked["hours"]) == (2, 5.0)
    spent = "price: 2\ndevice_hours: 7\npatience: {trials: 9, gain: 0.01}\n"
    told = plan(written(STEPS + EVALUATION + "target: L4\n" + spent), str(weightless))
    assert f"at 2 an hour: {2 * told['cost']['hours']:.2f}" in told["text"]
    assert "no trial is begun after 7 device hours" in told["text"]
    assert "no trial is begun after 9 in a row that brought no gain of more than 0.01" in told["text"]
    assert f"that is never, with {told['trials']} trials in all" in told["text"]
    short = plan(written(STEPS + EVALUATION + "patience: {trials: 2}\n"), str(weightless))
    assert "that is never" not in short["text"]


def test_a_plan_needs_no_weights_and_writes_nothing(written, weightless, tmp_path):
    path = written(STEPS + EVALUATION + "target: L4\ntrials: 4\nhours: 3\n")
    before = everything_in(tmp_path)
    told = plan(path, str(weightless))
    assert everything_in(tmp_path) == before
    assert told["recipes"] == 7
    assert [one["recipes"] for one in told["reasons"]] == [2]  # nine layers fewer leave one
    assert "after 3 hours trials are cut short; finalists once more and verification come on top" in told["text"]
    json.dumps(told)
    with pytest.raises(BadInput, match=r"holds no \.safetensors weights"):
        new_job(path, str(weightless), tmp_path / "run")


def test_speed_size_and_hours_are_estimated_where_a_target_is_named(written, weightless):
    told = plan(written(STEPS + EVALUATION + "target: L4\ntrials: 4\neta: 2\n"), str(weightless))
    speeds = {name: one["speed_norm"] for name, one in told["predicted"].items()}
    assert set(speeds) == set(told["feasible"])
    assert max(speeds, key=speeds.__getitem__).startswith("drop_layers(2")
    size = told["size_bytes"]
    weights = sum(path.stat().st_size for path in MODEL.glob("*.safetensors"))
    assert size["base"] == pytest.approx(weights, rel=0.03)
    assert size["smallest"]["recipe"].startswith("drop_layers(2")
    assert size["smallest"]["bytes"] == pytest.approx(size["base"] * 8 / 10, rel=0.1)
    assert told["cost"]["hours"] > 0
    assert "of one L4" in told["text"]
    rungs = told["cost"]["rungs"]
    assert [round(rung["trials"], 2) for rung in rungs] == [4, round(expected_trials(4, 2.0, 2)[1], 2)]
    assert rungs[0]["seconds"] == pytest.approx(rungs[1]["seconds"])  # half of the items each, and nothing is trained


def test_nothing_is_predicted_of_several_gpus_and_what_they_cannot_share_is_told(written, weightless):
    text = EVALUATION.replace("max_model_len: 1024", "max_model_len: 1024\ntarget: L4")
    steps = "steps:\n  - step: prune_ffn\n    width: [256, 384, 448]\n"
    told = plan(written(steps + text + "gpus: 4\n"), str(weightless))
    assert (told["predicted"], told["cost"]["hours"]) == ({}, None)
    assert "no SpeedNorm told: trials take 4 GPUs, and what is known is one L4" in told["text"]
    assert len(told["feasible"]) == 3


def test_a_base_that_gpus_cannot_share_is_refused_before_any_work(written, tmp_path, monkeypatch):
    path = written(STEPS + EVALUATION + "gpus: 3\n")
    monkeypatch.setattr("search.serving.here", lambda: {"CPU": 8.0, "GPU": 8.0})
    before = everything_in(tmp_path)
    for work in (lambda: plan(path, "tiny"), lambda: new_job(path, "tiny", tmp_path / "run")):
        with pytest.raises(BadInput, match="the model: vLLM cannot spread it over 3 GPUs: 4 attention heads are no"):
            work()
    assert everything_in(tmp_path) == before


def test_a_machine_with_fewer_gpus_than_a_trial_takes_is_told(written, tmp_path, monkeypatch):
    path = written(STEPS + EVALUATION + "gpus: 2\n")
    monkeypatch.setattr("search.start.hardware_of", lambda *_: ("cuda", ""))
    monkeypatch.setattr("search.serving.here", lambda: {"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(BadInput, match=r"^this machine is too small: a trial takes 2 GPUs of one node .* best has 1$"):
        new_job(path, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_and_finalists_are_part_of_the_hours():
    from evaluation.roofline_table import EXAONE
    from search.target import device_of

    space = load_space("generic").model_copy(update={"finalists": 0})
    short, long = (Recipe.of([{"step": "distill", "tokens": tokens}]) for tokens in (0 + 1, 3_600_000_000))
    device = device_of("L4")
    cheap, dear = (cost_of(space, 1, [recipe], [EXAONE], EXAONE, device) for recipe in (short, long))
    # 8 operations a weight and token at the rate that bf16 reaches
    assert dear.hours - cheap.hours == pytest.approx(8 * 1e6 * EXAONE.parameters / device.rate("bf16"), rel=1e-3)
    again = cost_of(space.model_copy(update={"finalists": 1}), 1, [short], [EXAONE], EXAONE, device)
    assert again.hours == pytest.approx(2 * cheap.hours, rel=1e-3)


@pytest.mark.parametrize(("trials", "eta", "rungs"), [(14, 2.0, 3), (27, 3.0, 3), (5, 4.0, 2)])
def test_trials_that_come_to_a_rung_are_those_that_the_scheduler_lets_on(trials, eta, rungs):
    draw, seen = random.Random(0), []
    for _ in range(2000):
        asha, counts = Asha(eta, rungs - 1), [0] * rungs
        for trial in range(trials):
            for rung in range(rungs):
                counts[rung] += 1
                if not asha.goes_on(str(trial), rung, draw.random()):
                    break
        seen.append(counts)
    means = [statistics.mean(counts[rung] for counts in seen) for rung in range(rungs)]
    assert expected_trials(trials, eta, rungs) == pytest.approx(means, rel=0.05)


@pytest.mark.parametrize(("trials", "eta", "rungs"), [(14, 2.0, 3), (27, 3.0, 4), (2, 4.0, 2)])
def test_trials_that_come_to_a_rung_are_those_that_are_promoted(trials, eta, rungs):
    expected = expected_promotions(trials, eta, rungs)
    assert expected[0] == trials
    for before, after in itertools.pairwise(expected):
        assert before / eta - 1 <= after <= before  # the best floor(n / eta), and whoever was among them for a time
    assert expected[-1] >= 1  # somebody is measured in full
    stopping = expected_trials(trials, eta, rungs)
    assert sum(expected) < sum(stopping) + 1  # nobody goes on for having come first


def test_of_many_trials_as_large_a_share_is_promoted_as_of_some(monkeypatch):
    told = expected_promotions(600, 1.3, 4)
    monkeypatch.setattr("search.estimate.SIMULATED", 600)
    assert told == pytest.approx(expected_promotions(600, 1.3, 4), rel=0.02)


def test_what_is_in_the_store_is_told_and_the_store_left_as_it_is(written, tmp_path):
    path = written(STEPS + EVALUATION)
    root = tmp_path / "store"
    data = read_conversations(CALIBRATION)
    made = [{"step": "drop_layers", "by": "last", "count": 1}, {"step": "context", "max_position_embeddings": 1024}]
    build(Recipe.of(made).steps, MODEL, Store(root), data)
    before = everything_in(root)
    told = plan(path, "tiny", root)
    assert everything_in(root) == before
    assert sorted(told["store"]["whole"]) == ["drop_layers(1, last)", "drop_layers(1, last) → context(1024)"]
    assert "in the store: 2 of 5 recipes whole, the first steps of 0 more" in told["text"]
    other = written("training_seed: 1\n" + STEPS + EVALUATION)
    assert plan(other, "tiny", root)["store"]["whole"] == []  # trained from another seed it is another model
    longer = written((STEPS + EVALUATION).replace("[1024]", "[512]"))
    assert {key: told for key, told in plan(longer, "tiny", root)["store"].items() if key != "why"} == {
        "whole": ["drop_layers(1, last)"], "begun": 1
    }  # fmt: skip


def test_conversations_that_the_base_wrote_are_found_in_the_store(written, tmp_path):
    ranked = STEPS.replace("by: last", "by: block_influence\n    calibration_rows: 4")
    path = written((ranked + EVALUATION).replace("reference:text/calibration.jsonl", "self"))
    root = tmp_path / "store"
    (root / "cache" / "self").mkdir(parents=True)
    for name, rows in (("other", 8), ("mine", 16)):
        lines = CALIBRATION.read_text().splitlines(keepends=True)[:rows]
        (root / "cache" / "self" / f"{name}.jsonl").write_text("".join(lines))
    made = [{"step": "drop_layers", "by": "block_influence", "calibration_rows": 4, "count": 1}]
    build(Recipe.of(made).steps, MODEL, Store(root), read_conversations(root / "cache" / "self" / "mine.jsonl"))
    assert plan(path, "tiny", root)["store"] == {"why": None, "whole": ["drop_layers(1, 4)"], "begun": 1}


def test_what_gpus_built_is_found_where_there_is_none(written, weightless, tmp_path):
    from compressors.lookup import Lookup

    asked = []

    class Noted(Lookup):
        def __init__(self, store, base, data, device, seed):
            asked.append(device)
            super().__init__(store, base, data, device, seed)

    (tmp_path / "store").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.plan_store.Lookup", Noted)
        plan(written(STEPS + EVALUATION + "target: L4\n"), "tiny", tmp_path / "store")
        plan(written(STEPS + EVALUATION), "tiny", tmp_path / "store")
    assert set(asked) == {"cuda", "cpu"}


def test_a_base_whose_numbers_no_roofline_knows_is_planned_without(written, weightless):
    config = json.loads((weightless / "config.json").read_text())
    (weightless / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    told = plan(written(STEPS + EVALUATION + "target: L4\n"), str(weightless))
    assert told["feasible"] and not told["predicted"] and not told["size_bytes"]
    assert "the roofline does not know the base's numbers" in told["text"]


def test_a_seed_between_the_ends_of_a_range_is_looked_at(written, weightless):
    text = STEPS.replace("[1, 2, 9]", "{low: 1, high: 9}").replace("[1024]", "{low: 1024, high: 100000}") + EVALUATION
    text += "seeds: [[{step: drop_layers, by: last, count: 9}, {step: context, max_position_embeddings: 5000}]]\n"
    told = plan(written(text), str(weightless))
    assert "tried first: drop_layers(9, last) → context(5000) (infeasible, and a trial all the same" in told["text"]


def test_ranges_of_too_many_numbers_are_counted_as_at_least(written, weightless):
    few = plan(written(STEPS.replace("[1, 2, 9]", "{low: 1, high: 3}") + EVALUATION), str(weightless))
    assert few["text"].startswith("7 recipes; 7 feasible")
    told = plan(written(STEPS.replace("[1024]", "{low: 1024, high: 4096}") + EVALUATION), str(weightless))
    assert told["at_least"]
    assert told["text"].startswith("at least 11 recipes (at the ends of its ranges, more between); ")


def test_what_is_feasible_only_between_the_ends_of_a_range_is_found(written, weightless):
    """W4A16's kernel takes multiples of 128: of 130 to 500 two, of 130 to 250 none."""
    steps = "steps:\n  - {step: prune_ffn, width: {low: 130, high: 500}}\n  - {step: quantize, scheme: W4A16}\n"
    told = plan(written(steps + EVALUATION), str(weightless))
    assert told["feasible"] == [f"prune_ffn({width}) → quantize(W4A16)" for width in (256, 384)]
    drawn = "  - {step: distill, tokens: 1000, lr: {low: 1.0e-4, high: 1.0e-3}}\n"
    assert plan(
        written(steps.replace("  - {step: quantize", f"{drawn}  - {{step: quantize") + EVALUATION), str(weightless)
    )["at_least"]
    with pytest.raises(BadInput, match="no recipe of this space is feasible"):
        plan(written(steps.replace("500", "250") + EVALUATION), str(weightless))


def test_a_space_too_large_to_go_through_is_drawn_from(written, weightless, monkeypatch):
    monkeypatch.setattr("search.plan.SAMPLE", 60)
    count = "{low: 1, high: 8, points: 8}"
    wide = STEPS.replace("[1, 2, 9]", count).replace("[1024]", f"[{', '.join(map(str, range(1024, 1024 + 3000)))}]")
    path = written(wide + EVALUATION + "target: L4\nseeds: [[{step: drop_layers, by: last, count: 8}]]\n")
    told = plan(path, str(weightless))
    assert told["recipes"] == count_of(load_space(path)) == 9 * 3001 - 1
    assert told["sampled"]
    assert 30 < told["looked_at"] <= 61
    assert "drop_layers(8, last)" in told["feasible"]
    assert "27,008 recipes, too many to go through" in told["text"]


def test_the_contest_is_planned_from_config_and_tokenizer_alone(weightless, monkeypatch):
    """All of it by hand: `squeeze plan contest --base FOLDER` goes through 17,279 recipes in half a minute."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("search.plan.MOST", 100)
    monkeypatch.setattr("search.plan.SAMPLE", 100)
    config = json.loads((weightless / "config.json").read_text())
    (weightless / "config.json").write_text(json.dumps(config | CONFIG | {"layer_types": ["full_attention"] * 30}))
    told = plan("contest", str(weightless))
    assert told["recipes"] == 17_279
    assert told["engine"] == "vLLM 0.14.1 on cuda"
    assert set(told["seeds"]) <= set(told["feasible"])
    assert all("nothing to win back" in one["reason"] for one in told["reasons"])
    assert told["predicted"]["quantize(W8A8)"]["speed_norm"] == pytest.approx(0.148, abs=0.001)
    assert told["size_bytes"]["base"] == 2 * 1_279_391_488
    assert 5 < told["cost"]["hours"] < 20
    assert "KMMLU-Pro" in told["unread"][0]
