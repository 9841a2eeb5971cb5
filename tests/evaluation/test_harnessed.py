"""The environment that asks lm-eval's tasks must hold the lm-eval that read their documents."""

import sys
from importlib.metadata import version

import pytest

from evaluation.harnessed import differs, version_in
from evaluation.reference import ITEMS, MODEL
from search.errors import BadInput
from search.space_file import load_space
from search.start import check_questions
from tests.evaluation.test_harness import ifeval, written


def environment(folder, told):
    """An interpreter that finds lm-eval `told` before this environment's own."""
    about = folder / "site" / f"lm_eval-{told}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lm_eval\nVersion: {told}\n")
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "site"} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_versions_are_told_and_compared(tmp_path):
    ours = version("lm_eval")
    other = environment(tmp_path, "0.4.1")
    assert version_in(sys.executable) == ours
    assert version_in(other) == "0.4.1"
    assert version_in("/no/such/python") == "none"
    assert differs(ours, other) == ""
    assert f"holds lm-eval 0.4.1, and lm-eval {ours} reads the documents here: install lm-eval=={ours}" in differs(
        "0.4.1", other
    )
    assert "holds no lm-eval, and" in differs("none", other)


def test_another_version_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZE_CONTEST_PYTHON", environment(tmp_path, "0.4.1"))
    space = tmp_path / "space.yaml"
    text = "steps: [{step: quantize, scheme: W8A8}]\nengine: contest\nevaluation:\n  benchmarks:\n"
    rules = written(tmp_path / "rows.jsonl", ifeval(1))
    space.write_text(f"{text}    lm_eval:ifeval: {rules}\n")
    with pytest.raises(BadInput, match=rf"holds lm-eval 0\.4\.1, and lm-eval {version('lm_eval')} reads"):
        check_questions(load_space(str(space)), MODEL)
    space.write_text(f"{text}    kmmlu_redux: {ITEMS / 'kmmlu_redux.jsonl'}\n")
    assert check_questions(load_space(str(space)), MODEL) == {}
