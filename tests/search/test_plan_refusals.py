"""What plan and search refuse, alike and before any work; what the hub does not give, plan alone goes on without."""

import pytest

from search.errors import BadInput
from search.plan import plan
from search.start import new_job
from tests.search.planned import EVALUATION, STEPS, everything_in


def test_a_store_that_is_not_there_and_a_base_without_weights_are_told(written, weightless, tmp_path):
    path = written(STEPS + EVALUATION)
    with pytest.raises(BadInput, match=r"no store at .*nowhere"):
        plan(path, "tiny", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "store").mkdir()
    assert "not told, since the base has no weights" in plan(path, str(weightless), tmp_path / "store")["text"]
    assert list((tmp_path / "store").iterdir()) == []


def test_a_grid_without_end_is_refused_with_its_line(written, weightless):
    path = written(STEPS.replace("[1024]", "{low: 1024, high: 100000}") + EVALUATION + "searcher: grid\n")
    with pytest.raises(
        BadInput, match=r"line \d+: searcher grid goes through all recipes, and context.max_position_embeddings from"
    ):
        plan(path, str(weightless))


def test_what_the_hub_does_not_give_is_told_and_the_rest_planned(written, weightless, tmp_path, monkeypatch):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read once, when they were imported
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    path = written(
        STEPS
        + EVALUATION.replace("reference:items/kmmlu_redux.jsonl", "hub").replace(
            "reference:text/calibration.jsonl", "hub:a/b"
        )
    )
    told = plan(path, str(weightless))
    assert len(told["unread"]) == 2
    assert told["recipes"] == 7
    lines = [line for line in told["text"].splitlines() if line.startswith("not read")]
    assert "does not give LGAI-EXAONE/KMMLU-Redux" in lines[0]
    assert "does not give a/b" in lines[1]
    with pytest.raises(BadInput, match="does not give LGAI-EXAONE/KMMLU-Redux"):
        new_job(path, "tiny", tmp_path / "run")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        (
            "[1, 2, 9]",
            "[9, 10]",
            1,
            r"no recipe of this space is feasible .*; infeasible, 2: .*leaves [01] of 10 layers",
        ),
        (
            "    optional: true\n    max",
            "    when: {drop_layers.count: 12}\n    max",
            7,
            "12 never holds: .* 1 or 2 or 9",
        ),
        ("step: drop_layers\n    optional: true", "step: drop_layers\n    when: {context.nope: 1}", 3, "context.nope"),
        ("count: [1, 2, 9]", "count: {when: {count: 1}, values: [1]}", 5, "round in a circle"),
        ("max_model_len: 1024\n", "trials: 0\n", 13, "trials: .*greater than or equal to 1"),
        ("max_model_len: 1024\n", "hours: 0\n", 13, "hours: .*greater than 0"),
        ("max_model_len: 1024\n", "seeds: [[{step: drop_layers, by: last, count: 3}]]\n", 13, "outside the space"),
    ],
)
def test_plan_and_search_alike_refuse_before_any_work(written, tmp_path, old, new, line, said):
    text = STEPS + EVALUATION
    if "infeasible" in said or "feasible" in said:
        text = text.replace("  - step: context\n    optional: true\n    max_position_embeddings: [1024]\n", "")
    assert old in text
    path = written(text.replace(old, new))
    before = everything_in(tmp_path)
    for work in (lambda: plan(path, "tiny"), lambda: new_job(path, "tiny", tmp_path / "run")):
        with pytest.raises(BadInput, match=rf"^{path}, line {line}: .*({said})") as told:
            work()
        assert "\n" not in str(told.value)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("calibration: reference:text/nowhere.jsonl", "line 14: no such file: .*nowhere.jsonl"),
        ("submissions: nowhere.csv", "line 15: .*nowhere.csv"),
    ],
)
def test_a_file_that_a_space_names_is_missed_with_the_line_that_names_it(written, line, said):
    text = (STEPS + EVALUATION).replace("calibration: reference:text/calibration.jsonl\n", "")
    text += line + "\n" if line.startswith("calibration") else f"calibration: self\n{line}\n"
    with pytest.raises(BadInput, match=said):
        plan(written(text), "tiny")
