"""A run that goes on where its files lie elsewhere."""

import json

from search.job import Job
from search.moved import moved, roots


def test_what_is_gone_is_found_below_the_same_root(tmp_path, monkeypatch):
    before, now = tmp_path / "before", tmp_path / "now"
    (now / "data").mkdir(parents=True)
    (now / "data" / "items.jsonl").touch()
    monkeypatch.chdir(now)
    gone = str(before / "data" / "items.jsonl")
    found = moved({"a": [gone, 1], "b": str(before / "nothing")}, {"here": str(before)})
    assert found == {"a": [str(now / "data" / "items.jsonl"), 1], "b": str(before / "nothing")}
    assert moved(gone, {}) == gone
    assert moved(gone, {"unknown": str(before)}) == gone


def test_what_is_there_stays(tmp_path, monkeypatch):
    (tmp_path / "items").touch()
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / "items").touch()
    monkeypatch.chdir(tmp_path / "now")
    assert moved(str(tmp_path / "items"), {"here": str(tmp_path)}) == str(tmp_path / "items")


def test_a_run_remembers_its_roots(tmp_path, space):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path, space=space, device="cpu", trials=1)
    job.save()
    (tmp_path / "ledger.jsonl").touch()
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["roots"] == roots()
    item = next(iter(space.evaluation.benchmarks.values()))
    code = roots()["code"]
    text = json.dumps(content).replace(code, "/elsewhere")
    assert item.startswith(code) and item not in text
    (tmp_path / "run.json").write_text(text)
    assert Job.load(tmp_path).space == space
