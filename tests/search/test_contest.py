"""The contest's engine, vLLM 0.14.1, asked through the same commands as our own: for real, in its own environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.engines import CONTEST_VERSIONS, has_bf16
from cluster.resources import find_device
from compressors.build import build
from compressors.quantize import Quantize
from compressors.store import Store
from evaluation.reference import MODEL
from search.bench import NO_DATA
from search.export import pack

SQUEEZE = str(Path(sys.executable).with_name("squeeze"))
SPACE = """
steps: [{step: quantize, scheme: W8A8}]
evaluation:
  limit: 6
  benchmarks: {kmmlu_redux: reference:items/kmmlu_redux.jsonl}
calibration: reference:text/calibration.jsonl
rungs: [{items: 1.0, tokens: 1.0}]
passes: 2
timing_seconds: 0
max_model_len: 1024
"""

if find_device() == "cpu" and not has_bf16():
    pytest.skip(
        "the contest's CPU build of vLLM needs AVX-512 BF16, which this processor lacks", allow_module_level=True
    )


@pytest.fixture(scope="module")
def w8a8(tmp_path_factory):
    return build([Quantize(scheme="W8A8")], MODEL, Store(tmp_path_factory.mktemp("store")), NO_DATA).artifact.folder


def squeeze(*words):
    return subprocess.run([SQUEEZE, *map(str, words)], capture_output=True, text=True, check=False)


def test_a_model_is_scored_by_it(w8a8, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    words = [
        "evaluate",
        w8a8,
        "--baseline",
        "tiny",
        "--space",
        tmp_path / "space.yaml",
        "--engine",
        "contest",
        "--json",
    ]
    done = squeeze(*words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["engine"].startswith(f"vllm {CONTEST_VERSIONS['vllm']}")
    assert told["benchmarks"]["kmmlu_redux"]["n"] == 6
    assert told["score"]["score_low"] <= told["score"]["score"] <= told["score"]["score_high"]


def test_a_submission_is_verified_by_it(w8a8, tmp_path):
    pack(w8a8, tmp_path / "submit.zip")
    done = squeeze("verify", tmp_path / "submit.zip", "--engine", "contest")
    assert done.returncode == 0, done.stderr
    assert "no run to compare" in done.stdout


def test_an_environment_that_is_not_there_is_bad_input(w8a8, monkeypatch):
    monkeypatch.setenv("SQUEEZE_CONTEST_PYTHON", "/nowhere/python")
    done = squeeze("evaluate", w8a8, "--engine", "contest")
    assert done.returncode == 2
    assert "no interpreter at /nowhere/python: run `make contest`" in done.stderr
