"""Benchmarks read through `datasets`: a folder laid out as a repository is to it what the hub is."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from evaluation.benchmarks import BENCHMARKS, BadData, benchmark
from evaluation.benchmarks.hub import Published, rows_of
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec
from search.errors import BadInput
from search.space_file import load_space
from search.start import check_questions


def rows_at_hand(name, count=5):
    lines = (ITEMS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def repository(folder, name, split, config=None):
    """Rows of the reference model laid out as the published set is."""
    (folder / "data").mkdir(parents=True)
    rows = rows_at_hand(name)
    for row in rows:  # LG's own KoMT-Bench has free text there; Parquet wants one type a column
        if name == "komt_bench":
            row["reference"] = json.dumps(row["reference"])
    parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    if config is not None:
        files = f"  data_files:\n  - split: {split}\n    path: data/{split}-*\n"
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n{files}---\n")
    return folder


@pytest.mark.parametrize("name", ["kmmlu_pro", "kmmlu_redux", "ko_longrag", "komt_bench"])
def test_published_sets_are_read_as_files_are(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    asked = benchmark(name)
    folder = repository(tmp_path / "repo", name, asked.published.split, asked.published.config)
    (tmp_path / "rows.json").write_text(json.dumps(rows_at_hand(name)), encoding="utf-8")
    spec = [SuiteSpec(benchmarks={name: source}) for source in (f"hub:{folder}", str(tmp_path / "rows.json"))]
    hub, local = (Suite(one, (0.5, 1.0)).slices for one in spec)
    assert hub == local
    assert sum(len(part.items) for part in hub) == 5


def test_every_published_place_is_known():
    places = {one.name: one.published.name for one in BENCHMARKS}
    assert places["kmmlu_pro"] == places["kmmlu_pro_likelihood"] == "LGAI-EXAONE/KMMLU-Pro"
    assert places["kmmlu_redux"] == places["kmmlu_redux_likelihood"] == "LGAI-EXAONE/KMMLU-Redux"
    assert {one.published.split for one in BENCHMARKS} == {"test", "train"}


def test_columns_of_another_set_are_named(tmp_path):
    folder = repository(tmp_path, "kmmlu_redux", "test")
    with pytest.raises(BadData, match=r"the hub's .*, row 0: no column id, titles"):
        rows_of(f"hub:{folder}", benchmark("ko_longrag").columns, Published(name="", split="test"))


def test_a_space_names_the_published_place_in_one_word(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text(
        "steps: [{step: quantize, scheme: W8A8}]\n"
        "evaluation:\n  benchmarks:\n"
        "    kmmlu_pro: hub\n    kmmlu_redux: hub:some/copy\n    lm_eval:ifeval: rows.jsonl\n"
    )
    found = load_space(str(space)).evaluation.benchmarks
    assert found == {
        "kmmlu_pro": "hub:",
        "kmmlu_redux": "hub:some/copy",
        "lm_eval:ifeval": str(tmp_path / "rows.jsonl"),
    }


def test_prompts_come_as_they_stream(tmp_path):
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.table({"prompt": [f"{n}?" for n in range(9)]}), tmp_path / "data" / "train-0.parquet")
    assert len(rows_of(f"hub:{tmp_path}", ("prompt",), Published(name="", split="train", first=4))) == 4
    with pytest.raises(BadData, match="hub: names no data set"):
        rows_of("hub:", ("prompt",), Published(name="", split="train"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"benchmarks": {"kmmlu_pro": "hub:"}},
            "the hub does not give LGAI-EXAONE/KMMLU-Pro .*accept its terms on its",
        ),
        ({"benchmarks": {"ko_longrag": "hub:"}}, "the hub does not give LGAI-EXAONE/Ko-LongRAG .*see that it can be"),
        ({"prompts": "hub:no/prompts"}, "the hub does not give no/prompts .*or download it and name its file"),
    ],
)
def test_out_of_reach_is_bad_input_before_any_work(tmp_path, monkeypatch, asked, said):
    """The real failure of a machine without network: one line, and what to do."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read once, when they were imported
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    space = tmp_path / "space.yaml"
    steps = [{"step": "quantize", "scheme": "W8A8"}]
    space.write_text(json.dumps({"steps": steps, "evaluation": asked}), encoding="utf-8")
    with pytest.raises(BadInput, match=said) as told:
        check_questions(load_space(str(space)), MODEL)
    assert "\n" not in str(told.value)
